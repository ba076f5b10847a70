"""The official `replicate` client, over real sockets against `tokenworks serve`."""

import asyncio
import io
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import replicate
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.webhook import Webhooks
from tests.clients.receiver import Receiver

WORDS = " ".join(f"w{number}" for number in range(40))


@pytest.fixture
def client(patient_server: Any) -> Iterator[Client]:
    """The models say the prompt again, word by word; `slow` takes two seconds for WORDS."""
    client = replicate.Client(api_token=patient_server.api_key, base_url=patient_server.url)
    yield client
    client._client.close()


@pytest.fixture
def stranger(patient_server: Any, strangers_key: str) -> Iterator[Client]:
    client = replicate.Client(api_token=strangers_key, base_url=patient_server.url)
    yield client
    client._client.close()


def test_run_waits_for_the_output(client: Client) -> None:
    assert client.run("tokenworks/echo", input={"prompt": "one two three"}) == ["one", " two", " three"]
    assert client.run("local/echo", input={"prompt": "a b"}, wait=5) == ["a", " b"]
    assert client.run("tokenworks/slow", input={"prompt": WORDS}, wait=1) == [
        "w0", *[f" w{number}" for number in range(1, 40)]
    ]  # fmt: skip
    assert client.run("tokenworks/slow", input={"prompt": "a b c d"}, wait=False) == ["a", " b", " c", " d"]


def test_run_with_a_version_gives_an_iterator(client: Client) -> None:
    version = client.models.get("tokenworks/echo").latest_version
    assert version is not None
    assert list(client.run(f"tokenworks/echo:{version.id}", input={"prompt": "one two"})) == ["one", " two"]
    assert client.models.get("tokenworks/echo").versions.get(version.id).id == version.id
    assert [each.id for each in client.models.get("tokenworks/echo").versions.list()] == [version.id]


def test_streams_come_as_they_are_made(client: Client) -> None:
    events = list(client.stream("tokenworks/echo", input={"prompt": "one\ntwo  three"}))
    assert [event.event.value for event in events[-1:]] == ["done"]
    assert "".join(str(event) for event in events) == "one\ntwo  three"
    assert len({event.id for event in events}) == len(events)


def test_a_prediction_through_its_life(client: Client) -> None:
    made = client.predictions.create(version="tokenworks/slow", input={"prompt": WORDS})
    assert (made.status, made.model) == ("starting", "tokenworks/slow")
    live = list(made.stream())
    made.wait()
    assert made.status == "succeeded"
    assert made.output is not None and "".join(made.output) == WORDS
    assert made.metrics is not None and made.metrics["output_token_count"] == 40
    assert made.metrics["predict_time"] <= made.metrics["total_time"]
    assert made.input == {"prompt": WORDS}
    assert made.created_at and made.started_at and made.completed_at
    assert [event.dict() for event in made.stream()] == [event.dict() for event in live]


def test_a_stream_goes_on_after_the_last_event_that_was_seen(client: Client, patient_server: Any) -> None:
    made = client.predictions.create(version="tokenworks/echo", input={"prompt": "a b c d"})
    made.wait()
    first = list(made.stream())
    headers = {"authorization": f"Bearer {patient_server.api_key}", "last-event-id": first[1].id}
    rest = httpx.get(made.urls["stream"], headers=headers)  # type: ignore[index]
    assert rest.headers["content-type"].startswith("text/event-stream")
    assert [line for line in rest.text.splitlines() if line.startswith("id: ")] == [f"id: {e.id}" for e in first[2:]]


def test_a_prediction_is_cancelled(client: Client) -> None:
    made = client.predictions.create(version="tokenworks/slow", input={"prompt": WORDS})
    made.cancel()
    assert made.status == "canceled"
    time.sleep(2.5)  # longer than it would have taken
    made.reload()
    assert made.status == "canceled"
    assert list(made.stream())[-1].data == '{"reason":"canceled"}'
    made.cancel()


def test_cancel_after(client: Client, patient_server: Any) -> None:
    url = f"{patient_server.url}/v1/models/tokenworks/slow/predictions"
    headers = {"authorization": f"Bearer {patient_server.api_key}", "cancel-after": "5s", "prefer": "wait=20"}
    body = {"input": {"prompt": " ".join(["w"] * 200)}}
    made = httpx.post(url, json=body, headers=headers, timeout=60)
    assert (made.status_code, made.json()["status"]) == (201, "canceled")
    assert 10 < len(made.json()["output"]) < 200
    for name, value in (("cancel-after", "1s"), ("cancel-after", "soon"), ("prefer", "wait=61")):
        refused = httpx.post(url, json=body, headers=headers | {name: value}, timeout=60)
        assert refused.status_code == 422
        assert refused.json()["invalid_fields"][0]["field"].lower() == name


def test_a_blocking_caller_hears_starting_when_it_is_not_done(client: Client) -> None:
    made = client.models.predictions.create("tokenworks/slow", input={"prompt": WORDS}, wait=1)
    assert made.status == "starting"
    made.wait()
    assert made.status == "succeeded"


def test_failures_are_told(client: Client) -> None:
    with pytest.raises(ModelError, match="fault=error_before"):
        client.run("tokenworks/echo", input={"prompt": "fault=error_before"})
    made = client.predictions.create(version="tokenworks/echo", input={"prompt": "fault=cut after 2 a b c d"})
    with pytest.raises(RuntimeError):
        list(made.stream())
    made.wait()
    assert made.status == "failed" and made.error
    for act, status in (
        (lambda: client.run("tokenworks/nothing", input={"prompt": "x"}), 404),
        (lambda: client.models.get("acme/echo"), 404),
        (lambda: client.predictions.get("nothing"), 404),
        (lambda: client.run("tokenworks/echo", input={}), 422),
        (lambda: client.run("tokenworks/echo", input={"prompt": 1}), 422),
        (lambda: client.run("tokenworks/echo", input={"prompt": "x", "temperature": 9}), 422),
    ):
        with pytest.raises(ReplicateError) as raised:
            act()
        assert raised.value.status == status
        assert raised.value.detail and raised.value.title


def test_what_has_no_effect_is_reported_or_refused(patient_server: Any) -> None:
    url = f"{patient_server.url}/v1/models/tokenworks/echo/predictions"
    headers = {"authorization": f"Bearer {patient_server.api_key}"}
    body = {"input": {"prompt": "a", "wizardry": 3}}
    made = httpx.post(url, json=body, headers=headers)
    assert (made.status_code, made.headers["x-tokenworks-ignored"]) == (201, "wizardry")
    refused = httpx.post(url, json=body, headers=headers | {"x-tokenworks-strict": "true"})
    assert (refused.status_code, refused.json()["invalid_fields"]) == (422, [{"field": "wizardry"}])
    plain = httpx.post(url, json={"input": {"prompt": "a"}}, headers=headers | {"x-tokenworks-strict": "true"})
    assert plain.status_code == 201
    assert "x-tokenworks-ignored" not in plain.headers


def test_predictions_are_listed_by_page_and_only_for_their_project(
    client: Client, stranger: Client, patient_server: Any
) -> None:
    theirs = stranger.predictions.create(version="tokenworks/echo", input={"prompt": "secret"})
    assert [each.id for each in stranger.predictions.list()] == [theirs.id]
    with pytest.raises(ReplicateError):
        client.predictions.get(theirs.id)
    with pytest.raises(ReplicateError):
        client.predictions.cancel(theirs.id)
    made = [client.predictions.create(version="tokenworks/echo", input={"prompt": str(n)}).id for n in range(105)]
    page = client.predictions.list()
    assert [each.id for each in page] == made[:4:-1]
    assert page.next is not None
    rest = client.predictions.list(page.next)
    assert [each.id for each in rest][:5] == made[4::-1]
    assert theirs.id not in {each.id for each in rest}


def test_models_account_and_hardware(client: Client, patient_server: Any) -> None:
    assert {model.id for model in client.models.list()} == {"tokenworks/echo", "tokenworks/slow"}
    assert [model.id for model in client.models.search("SLOW")] == ["tokenworks/slow"]
    assert client.accounts.current().type == "organization"
    assert client.hardware.list()
    made = client.deployments.predictions.create(("tokenworks", "echo"), input={"prompt": "x"}, wait=True)
    assert made.output == ["x"]
    # Other clients ask on the same paths and get their own shape.
    assert patient_server.call("GET", "/v1/models")[1]["object"] == "list"
    assert patient_server.call("GET", "/v1/models/echo")[1]["id"] == "echo"


def test_files_are_kept_for_a_day_and_whoever_runs_the_model_can_fetch_them(client: Client, stranger: Client) -> None:
    made = client.files.create(io.BytesIO(b"\x89PNG"), filename="cat.png")
    assert (made.name, made.content_type, made.size) == ("cat.png", "image/png", 4)
    assert client.files.get(made.id) == made
    assert made.id in [each.id for each in client.files.list()]
    assert httpx.get(made.urls["get"]).content == b"\x89PNG"
    assert httpx.get(made.urls["get"].replace("signature=", "signature=0")).status_code == 403
    with pytest.raises(ReplicateError) as hidden:
        stranger.files.get(made.id)
    assert hidden.value.status == 404
    assert client.files.delete(made.id)
    assert httpx.get(made.urls["get"]).status_code == 404


def test_webhooks_are_signed_and_filtered(client: Client, receiver: Receiver, wait_until: Any) -> None:
    secret = client.webhooks.default.secret()
    made = client.predictions.create(
        version="tokenworks/slow",
        input={"prompt": WORDS},
        webhook=receiver.url,
        webhook_events_filter=["start", "output", "completed"],
    )
    wait_until(lambda: receiver.seen and receiver.bodies()[-1]["status"] == "succeeded", "the last webhook")
    statuses = [body["status"] for body in receiver.bodies()]
    assert statuses[0] == "starting"
    assert "processing" in statuses
    assert {body["id"] for body in receiver.bodies()} == {made.id}
    for headers, body in receiver.seen:
        Webhooks.validate(headers=headers, body=body.decode(), secret=secret)
    only_last = Receiver(refusals=1)
    client.predictions.create(
        version="tokenworks/echo", input={"prompt": "x"}, webhook=only_last.url, webhook_events_filter=["completed"]
    )
    wait_until(lambda: len(only_last.seen) == 2, "another try")
    ids = {headers["webhook-id"] for headers, _ in only_last.seen}
    assert len(ids) == 1  # the same delivery
    assert [body["status"] for body in only_last.bodies()] == ["succeeded", "succeeded"]
    only_last.close()


def test_webhooks_of_cancelled_predictions_say_so(client: Client, receiver: Receiver, wait_until: Any) -> None:
    made = client.predictions.create(version="tokenworks/slow", input={"prompt": WORDS}, webhook_completed=receiver.url)
    made.cancel()
    wait_until(lambda: receiver.seen, "the webhook")
    assert [body["status"] for body in receiver.bodies()] == ["canceled"]


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://localhost:1/", "http://[::1]/", "ftp://x.y/"])
def test_webhooks_to_private_addresses_are_refused(client: Client, url: str) -> None:
    with pytest.raises(ReplicateError) as raised:
        client.predictions.create(version="tokenworks/echo", input={"prompt": "x"}, webhook=url)
    assert raised.value.status == 422


def test_the_asynchronous_client(patient_server: Any) -> None:
    async def run() -> tuple[Any, str, str]:
        client = replicate.Client(api_token=patient_server.api_key, base_url=patient_server.url)
        output = await client.async_run("tokenworks/echo", input={"prompt": "one two"})
        streamed = [str(event) async for event in await client.async_stream("tokenworks/echo", input={"prompt": "a b"})]
        made = await client.predictions.async_create(version="tokenworks/echo", input={"prompt": "c"})
        await made.async_wait()
        await client._async_client.aclose()
        return output, "".join(streamed), made.status

    assert asyncio.run(run()) == (["one", " two"], "a b", "succeeded")
