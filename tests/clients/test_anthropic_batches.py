"""Message batches with the official `anthropic` client, over a real gateway, control and worker (echo)."""

import time
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic

PATIENCE = 120.0


def request(number: int, model: str = "echo", words: int = 1, **params: Any) -> Any:
    text = " ".join([f"number{number}"] * words)
    asked = {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}
    return {"custom_id": f"r-{number}", "params": {**asked, **params}}


def until_ended(client: Anthropic, batch_id: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while (batch := client.messages.batches.retrieve(batch_id)).processing_status != "ended":
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch


@pytest.fixture
def client(echo_server: Any) -> Any:
    with Anthropic(base_url=echo_server.url, api_key=echo_server.api_key, max_retries=0) as client:
        yield client


def test_a_message_batch(client: Anthropic) -> None:
    requests = [*[request(number) for number in range(10)], request(10, model="none"), request(11, max_tokens=-1)]
    batch = client.messages.batches.create(requests=requests)
    assert (batch.processing_status, batch.request_counts.processing, batch.results_url) == ("in_progress", 12, None)
    batch = until_ended(client, batch.id)
    counts = batch.request_counts
    assert (counts.succeeded, counts.errored, counts.processing) == (10, 2, 0)
    assert batch.ended_at is not None
    results = {result.custom_id: result.result for result in client.messages.batches.results(batch.id)}
    assert len(results) == 12
    for number in range(10):
        result = results[f"r-{number}"]
        assert result.type == "succeeded"
        assert [block.text for block in result.message.content if block.type == "text"] == [f"number{number}"]
    for name, kind in (("r-10", "not_found_error"), ("r-11", "invalid_request_error")):
        result = results[name]
        assert result.type == "errored"
        assert result.error.error.type == kind
    assert batch.id in [each.id for each in client.messages.batches.list(limit=1)]
    assert client.messages.batches.delete(batch.id).type == "message_batch_deleted"
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.batches.retrieve(batch.id)
    assert caught.value.body["error"]["type"] == "not_found_error"  # type: ignore[index,call-overload]


def test_cancel(patient_server: Any) -> None:
    with Anthropic(base_url=patient_server.url, api_key=patient_server.api_key, max_retries=0) as client:
        requests = [request(number, model="slow", words=20) for number in range(60)]
        batch = client.messages.batches.create(requests=requests)
        assert client.messages.batches.cancel(batch.id).processing_status in ("canceling", "ended")
        counts = until_ended(client, batch.id).request_counts
        assert (counts.canceled > 0, counts.canceled + counts.succeeded) == (True, 60)
        kinds = [result.result.type for result in client.messages.batches.results(batch.id)]
        assert (kinds.count("canceled"), len(kinds)) == (counts.canceled, 60)


def test_errors_have_the_familys_shape(client: Anthropic, echo_server: Any) -> None:
    for wrong in ([], [request(1), request(1)], [request(1, stream=True)]):
        with pytest.raises(anthropic.BadRequestError) as caught:
            client.messages.batches.create(requests=wrong)
        assert caught.value.body["type"] == "error"  # type: ignore[index,call-overload]
    with (
        Anthropic(base_url=echo_server.url, api_key="sk-tw-wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.batches.list()
