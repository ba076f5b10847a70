"""Webhook endpoints of a project and what they hear, with the official `openai` client, which also verifies it."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import InvalidWebhookSignatureError, OpenAI
from tests.clients.receiver import Receiver

WORDS = " ".join(f"w{number}" for number in range(40))
EVERY: Any = [
    *(f"batch.{status}" for status in ("completed", "failed", "expired", "cancelled")),
    *(f"response.{status}" for status in ("completed", "failed", "cancelled", "incomplete")),
]


@pytest.fixture
def client(patient_server: Any) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{patient_server.url}/v1", api_key=patient_server.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def endpoint(client: OpenAI, receiver: Receiver) -> Iterator[Any]:
    made = client.webhooks.create(name="jobs", url=receiver.url, event_types=EVERY)
    yield made
    client.webhooks.delete(made.id)


@pytest.fixture
def heard(client: OpenAI, endpoint: Any, receiver: Receiver, wait_until: Any) -> Any:
    """The event about `id`, verified."""

    def find(name: str) -> Any:
        def found() -> Any:
            return [each for each in receiver.seen if json.loads(each[1])["data"]["id"] == name]

        [(headers, body)] = wait_until(found, f"an event about {name}")
        return client.webhooks.unwrap(body, headers, secret=endpoint.signing_secret)

    return find


def run(client: OpenAI, *bodies: dict[str, Any]) -> Any:
    lines = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/responses", "body": {"model": "slow", **body}}
        for number, body in enumerate(bodies)
    ]
    data = "\n".join(json.dumps(line) for line in lines).encode()
    file = client.files.create(file=("requests.jsonl", data), purpose="batch").id
    return client.batches.create(input_file_id=file, endpoint="/v1/responses", completion_window="24h")


def test_batches_tell_how_they_ended(client: OpenAI, heard: Any) -> None:
    left = run(client, *[{"input": WORDS}] * 30)
    client.batches.cancel(left.id)
    good, bad = run(client, {"input": "a"}), run(client, {"model": "nothing"})
    for batch, status in ((good, "completed"), (bad, "failed"), (left, "cancelled")):
        event = heard(batch.id)
        assert (event.type, event.object) == (f"batch.{status}", "event")
        assert client.batches.retrieve(batch.id).status == status


def test_responses_in_the_background_tell_how_they_ended(client: OpenAI, heard: Any, receiver: Receiver) -> None:
    def background(text: str, **more: Any) -> str:
        return client.responses.create(model="slow", input=text, background=True, **more).id

    ids = {
        "completed": background("a b"),
        "incomplete": background("a b c", max_output_tokens=1),
        "failed": background("fault=error_before"),
        "cancelled": background(" ".join([WORDS] * 10)),
    }
    client.responses.cancel(ids["cancelled"])
    waited_for = client.responses.create(model="echo", input="here")
    for status, response_id in ids.items():
        event = heard(response_id)
        assert event.type == f"response.{status}"
        assert client.responses.retrieve(event.data.id).status == status
    assert waited_for.id not in {body["data"]["id"] for body in receiver.bodies()}, "its caller has the answer"
    assert len({body["id"] for body in receiver.bodies()}) == len(receiver.bodies())


def test_an_organization_hears_of_all_its_projects(
    patient_server: Any, strangers_key: str, receiver: Receiver, wait_until: Any
) -> None:
    admin = {"key": patient_server.admin_key}
    wish = {"url": receiver.url, "events": ["response.completed"]}
    status, endpoint = patient_server.call("POST", "/admin/v1/webhooks", wish, **admin)
    assert status == 201, endpoint
    ask = {"model": "echo", "input": "a", "background": True}
    made = {patient_server.call("POST", "/v1/responses", ask, key=key)[1]["id"] for key in (None, strangers_key)}
    wait_until(lambda: {body["data"]["id"] for body in receiver.bodies()} == made, "both events")
    patient_server.call("DELETE", f"/admin/v1/webhooks/{endpoint['id']}", **admin)


def test_the_life_of_an_endpoint(client: OpenAI, receiver: Receiver, strangers_key: str, patient_server: Any) -> None:
    assert client.webhooks.event_types.list().data == EVERY
    made = client.webhooks.create(name="jobs", url=receiver.url, event_types=["batch.completed"])
    assert made.signing_secret_hint == f"whsec_...{made.signing_secret[-4:]}"
    found = client.webhooks.retrieve(made.id)
    assert found.to_dict() == {name: value for name, value in made.to_dict().items() if name != "signing_secret"}
    changed = client.webhooks.update(made.id, name="other", event_types=["batch.failed", "response.failed"])
    assert (changed.name, changed.event_types, changed.url) == ("other", ["batch.failed", "response.failed"], made.url)
    others = [client.webhooks.create(name=str(n), url=receiver.url, event_types=["batch.failed"]).id for n in range(3)]
    assert {each.id for each in client.webhooks.list(limit=2)} >= {made.id, *others}
    with OpenAI(base_url=f"{patient_server.url}/v1", api_key=strangers_key, max_retries=0) as stranger:
        assert list(stranger.webhooks.list()) == []
        with pytest.raises(openai.NotFoundError):
            stranger.webhooks.delete(made.id)
    for endpoint_id in (made.id, *others):
        assert client.webhooks.delete(endpoint_id).deleted
    with pytest.raises(openai.NotFoundError) as gone:
        client.webhooks.retrieve(made.id)
    assert gone.value.code == "webhook_endpoint_not_found"


def test_a_test_tells_what_the_endpoint_answered(client: OpenAI, endpoint: Any, receiver: Receiver) -> None:
    receiver.refusals = 1
    refused = client.webhooks.test(endpoint.id, event_type="batch.completed")
    assert (refused.status_code, refused.event_type, len(receiver.seen)) == (503, "batch.completed", 1)
    assert client.webhooks.test(endpoint.id, event_type="response.failed").status_code == 204
    headers, body = receiver.seen[-1]
    assert client.webhooks.unwrap(body, headers, secret=endpoint.signing_secret).type == "response.failed"
    nobody = client.webhooks.create(name="x", url="http://127.0.0.1:9/", event_types=["batch.failed"])
    with pytest.raises(openai.BadRequestError, match="did not reach"):
        client.webhooks.test(nobody.id, event_type="batch.failed")
    client.webhooks.delete(nobody.id)


@pytest.mark.parametrize("keep", [False, True])
def test_a_new_secret_signs_at_once_and_the_old_one_for_a_day_where_wished(
    client: OpenAI, receiver: Receiver, keep: bool
) -> None:
    made = client.webhooks.create(name="x", url=receiver.url, event_types=["batch.failed"])
    new = client.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=keep)
    assert new.signing_secret != made.signing_secret
    client.webhooks.test(made.id, event_type="batch.failed")
    headers, body = receiver.seen[-1]
    client.webhooks.verify_signature(body, headers, secret=new.signing_secret)
    if keep:
        client.webhooks.verify_signature(body, headers, secret=made.signing_secret)
    else:
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.verify_signature(body, headers, secret=made.signing_secret)
    client.webhooks.delete(made.id)


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"event_types": ["eval.run.failed"]}, "event_types"),
        ({"event_types": []}, "event_types"),
        ({"name": ""}, "name"),
    ],
)
def test_what_is_wrong_is_named(client: OpenAI, wrong: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.webhooks.create(**{"name": "x", "url": "https://example.com/", "event_types": ["batch.failed"], **wrong})
    assert str(refused.value.param).startswith(param)
