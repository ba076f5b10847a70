"""The official `openai` client's admin resources, unmodified, through the gateway."""

import time
from typing import Any

import openai
import pytest
from openai import OpenAI

MODEL = "echo"
NO_LIMIT = 2**53 - 1


@pytest.fixture(scope="module")
def client(echo_server: Any) -> Any:
    with OpenAI(
        base_url=f"{echo_server.url}/v1",
        api_key=echo_server.api_key,
        admin_api_key=echo_server.admin_key,
        max_retries=0,
    ) as client:
        yield client


@pytest.fixture(scope="module")
def organization(client: OpenAI) -> Any:
    return client.admin.organization


@pytest.fixture
def project(organization: Any) -> Any:
    made = organization.projects.create(name="web shop")
    yield made
    organization.projects.archive(made.id)


def test_the_life_of_a_project(organization: Any) -> None:
    made = organization.projects.create(name="first name")
    assert (made.object, made.name, made.status) == ("organization.project", "first name", "active")
    assert organization.projects.update(made.id, name="second name").name == "second name"
    assert organization.projects.retrieve(made.id).name == "second name"
    assert made.id in [each.id for each in organization.projects.list()]
    archived = organization.projects.archive(made.id)
    assert archived.status == "archived"
    assert archived.archived_at is not None
    assert organization.projects.archive(made.id) == archived
    assert made.id not in [each.id for each in organization.projects.list()]
    assert made.id in [each.id for each in organization.projects.list(include_archived=True)]
    with pytest.raises(openai.NotFoundError, match="no project"):
        organization.projects.retrieve("proj_none")


def test_lists_go_on_page_by_page(organization: Any) -> None:
    made = [organization.projects.create(name=f"page {number}").id for number in range(5)]
    try:
        listed = [each.id for each in organization.projects.list(limit=2)]
        assert len(listed) == len(set(listed))
        assert set(made) <= set(listed)
    finally:
        for each in made:
            organization.projects.archive(each)


def test_a_service_account_and_its_key_which_works_and_is_revoked(
    organization: Any, project: Any, echo_server: Any, wait_until: Any
) -> None:
    accounts = organization.projects.service_accounts
    made = accounts.create(project.id, name="robot")
    assert made.api_key.value.startswith("sk-tw-")
    with OpenAI(base_url=f"{echo_server.url}/v1", api_key=made.api_key.value, max_retries=0) as caller:
        assert caller.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}]).usage
        (key,) = organization.projects.api_keys.list(project.id)
        assert key.owner.service_account.name == "robot"
        assert made.api_key.value not in key.redacted_value
        assert organization.projects.api_keys.retrieve(key.id, project_id=project.id).id == key.id
        assert organization.projects.api_keys.delete(key.id, project_id=project.id).deleted

        def refused() -> bool:
            try:
                caller.models.list()
            except openai.AuthenticationError:
                return True
            return False

        wait_until(refused, "the key to be refused")
    with pytest.raises(openai.NotFoundError):
        organization.projects.api_keys.retrieve(key.id, project_id=project.id)
    second = accounts.api_keys.create(made.id, project_id=project.id, name="again", expires_in_seconds=60)
    assert second.expires_at is not None
    assert accounts.update(made.id, project_id=project.id, name="robot 2").name == "robot 2"
    assert [each.name for each in accounts.list(project.id)] == ["robot 2"]
    assert accounts.delete(made.id, project_id=project.id).deleted
    assert list(organization.projects.api_keys.list(project.id)) == []


def test_rate_limits(organization: Any, project: Any) -> None:
    limits = organization.projects.rate_limits
    (known,) = limits.list_rate_limits(project.id)
    assert (known.model, known.max_requests_per_1_minute) == (MODEL, NO_LIMIT)
    changed = limits.update_rate_limit(
        known.id, project_id=project.id, max_requests_per_1_minute=50, max_tokens_per_1_minute=4000
    )
    assert (changed.max_requests_per_1_minute, changed.max_tokens_per_1_minute) == (50, 4000)
    assert changed.max_requests_per_1_day == NO_LIMIT
    assert list(limits.list_rate_limits(project.id)) == [changed]
    free = limits.update_rate_limit(known.id, project_id=project.id, max_requests_per_1_minute=NO_LIMIT)
    assert (free.max_requests_per_1_minute, free.max_tokens_per_1_minute) == (NO_LIMIT, 4000)
    with pytest.raises(openai.BadRequestError, match="max_images_per_1_minute: this is not enforced"):
        limits.update_rate_limit(known.id, project_id=project.id, max_images_per_1_minute=5)


@pytest.mark.parametrize("level", ["organization", "project"])
def test_spend_limits(organization: Any, project: Any, level: str) -> None:
    resource = organization.spend_limit if level == "organization" else organization.projects.spend_limit
    where = () if level == "organization" else (project.id,)
    made = resource.update(*where, currency="USD", interval="month", threshold_amount=10_000_00)
    assert (made.object, made.threshold_amount, made.enforcement.status) == (
        f"{level}.spend_limit",
        10_000_00,
        "enforcing",
    )
    assert resource.retrieve(*where) == made
    assert resource.delete(*where).deleted
    with pytest.raises(openai.NotFoundError):
        resource.retrieve(*where)


def test_an_invite_makes_a_user(organization: Any, project: Any, echo_server: Any) -> None:
    email = f"ada.{time.time_ns()}@example.com"
    invite = organization.invites.create(email=email, role="reader", projects=[{"id": project.id, "role": "member"}])
    assert invite.status == "pending"
    assert invite.id in [each.id for each in organization.invites.list()]
    body = {"token": invite.token, "name": "Ada"}
    status, accepted = echo_server.call("POST", "/admin/v1/invites/accept", body, key="none")
    assert status == 200, accepted
    assert echo_server.call("POST", "/admin/v1/invites/accept", body, key="none")[0] == 400
    assert organization.invites.retrieve(invite.id).status == "accepted"

    user = organization.users.retrieve(accepted["user_id"])
    assert (user.email, user.role, user.projects.data[0].id) == (email, "viewer", project.id)
    assert [each.id for each in organization.users.list(emails=[email])] == [user.id]
    assert [each.email for each in organization.projects.users.list(project.id)] == [email]
    assert organization.projects.users.update(user.id, project_id=project.id, role="owner").role == "owner"
    assert organization.projects.users.delete(user.id, project_id=project.id).deleted
    assert organization.projects.users.create(project.id, role="member", email=email).id == user.id

    own = OpenAI(base_url=f"{echo_server.url}/v1", api_key="", admin_api_key=accepted["admin_key"], max_retries=0)
    with own:
        assert project.id in [each.id for each in own.admin.organization.projects.list()]
        with pytest.raises(openai.PermissionDeniedError, match="viewer"):
            own.admin.organization.projects.create(name="no")
        assert organization.users.update(user.id, role="admin").role == "admin"
        made = own.admin.organization.projects.create(name="yes")
        own.admin.organization.projects.archive(made.id)
        assert organization.users.delete(user.id).deleted
        with pytest.raises(openai.AuthenticationError):
            own.admin.organization.projects.list()


def test_admin_keys(organization: Any) -> None:
    made = organization.admin_api_keys.create(name="ci", expires_in_seconds=3600)
    assert made.value.startswith("sk-tw-admin-")
    assert organization.admin_api_keys.retrieve(made.id).expires_at == made.expires_at
    assert made.id in [each.id for each in organization.admin_api_keys.list(order="desc")]
    assert organization.admin_api_keys.delete(made.id).deleted
    assert made.id not in [each.id for each in organization.admin_api_keys.list()]


def test_every_change_is_in_the_audit_log(organization: Any, project: Any) -> None:
    organization.projects.update(project.id, name="renamed")
    first = next(iter(organization.audit_logs.list(project_ids=[project.id], limit=1)))
    assert (first.type, first.actor.type) == ("project.updated", "api_key")
    assert (first.before, first.after) == ({"name": "web shop"}, {"name": "renamed"})
    assert first.ip_address == "127.0.0.1"
    types = [each.type for each in organization.audit_logs.list(project_ids=[project.id], limit=1)]
    assert types == ["project.updated", "project.created"]
    created = organization.audit_logs.list(project_ids=[project.id], event_types=["project.created"])
    assert [each.project_created.id for each in created] == [project.id]
    moment = {"gt": int(time.time()) + 60}
    assert list(organization.audit_logs.list(effective_at=moment)) == []
    newer = organization.audit_logs.list(before=next(iter(created)).id, project_ids=[project.id])
    assert [each.type for each in newer.data] == ["project.updated"]


def test_usage_and_costs(organization: Any, project: Any, echo_server: Any, wait_until: Any) -> None:
    start = int(time.time()) - 60
    key = organization.projects.service_accounts.create(project.id, name="spender").api_key
    with OpenAI(base_url=f"{echo_server.url}/v1", api_key=key.value, max_retries=0) as caller:
        answers = [
            caller.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "one two three"}])
            for _ in range(3)
        ]
        vectors = caller.embeddings.create(model=MODEL, input="one two")
    usage = organization.usage

    def results(width: str) -> Any:
        page = usage.completions(
            start_time=start,
            bucket_width=width,
            project_ids=[project.id],
            group_by=["project_id", "api_key_id", "model", "batch", "service_tier"],
        )
        return [result for bucket in page.data for result in bucket.results]

    for width in ("1m", "1h", "1d"):
        # Requests of one minute may fall into two buckets.
        found = wait_until(
            lambda width=width: (
                (seen := results(width)) and sum(each.num_model_requests for each in seen) == 3 and seen
            ),
            "usage to arrive",
        )
        assert {(each.project_id, each.api_key_id, each.model) for each in found} == {(project.id, key.id, MODEL)}
        assert sum(each.input_tokens for each in found) == sum(each.usage.prompt_tokens for each in answers)
        assert sum(each.output_tokens for each in found) == sum(each.usage.completion_tokens for each in answers)
        assert {(each.batch, each.service_tier) for each in found} == {(False, "default")}
    page = usage.embeddings(start_time=start, bucket_width="1h", api_key_ids=[key.id], models=[MODEL])
    assert sum(r.input_tokens for bucket in page.data for r in bucket.results) == vectors.usage.prompt_tokens

    days = 20 * 86400
    first = usage.completions(start_time=start - days, bucket_width="1d", project_ids=[project.id])
    assert len(first.data) == 7
    assert first.has_more
    buckets = list(first.data)
    while first.has_more:
        first = usage.completions(
            start_time=start - days, bucket_width="1d", project_ids=[project.id], page=first.next_page
        )
        buckets += first.data
    assert [b.start_time for b in buckets] == sorted({b.start_time for b in buckets})
    assert sum(r.num_model_requests for bucket in buckets for r in bucket.results) == 3

    costs = usage.costs(start_time=start, group_by=["project_id", "line_item", "api_key_id"], project_ids=[project.id])
    found = [result for bucket in costs.data for result in bucket.results]
    assert {(each.project_id, each.line_item, each.api_key_id) for each in found} == {(project.id, MODEL, key.id)}
    assert {(each.amount.currency, each.amount.value) for each in found} == {("usd", 0.0)}
