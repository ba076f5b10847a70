"""Predictions: inputs of language models, a record through its life, and events that the client does not skip."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import (
    InvalidRequest,
    LimitReached,
    NotFound,
    TokenworksError,
    UpstreamBroken,
    UpstreamRejected,
)
from tokenworks.core.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    UsageReport,
)
from tokenworks.core.messages import Image, Message, Role, Text
from tokenworks.core.request import Conversation, Prompts, Request, ResponseFormat, Sampling
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.base import Failing, OwnStatuses
from tokenworks.protocols.replicate import requests
from tokenworks.protocols.replicate.codec import stream_url
from tokenworks.protocols.replicate.prediction import Prediction, urls
from tokenworks.protocols.replicate.responses import encode_prediction, new_prediction

CODEC = codec("replicate")
READ_BY_ITS_CLIENT = {
    "id", "model", "version", "status", "input", "output", "logs", "error", "metrics",
    "created_at", "started_at", "completed_at", "urls",
}  # fmt: skip


def asked(version: str = "meta/llama", **given: object) -> Request:
    return CODEC.decode_request(json.dumps({"version": version, "input": {"prompt": "Hi", **given}}).encode())


def user(*parts: Any) -> Message:
    return Message(Role.USER, list(parts))


@pytest.mark.parametrize(
    ("given", "task"),
    [
        ({}, Conversation([user(Text("Hi"))])),
        ({"system_prompt": "Be brief."}, Conversation([Message(Role.SYSTEM, [Text("Be brief.")]), user(Text("Hi"))])),
        ({"prompt_template": "{system_prompt}<u>{prompt}</u>", "system_prompt": "S"}, Prompts(["S<u>Hi</u>"])),
        ({"image": "https://x/a.png"}, Conversation([user(Text("Hi"), Image(url="https://x/a.png"))])),
        (
            {"image": "data:image/png;base64,AAAA"},
            Conversation([user(Text("Hi"), Image(data="AAAA", media_type="image/png"))]),
        ),
        (
            {"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]},
            Conversation([user(Text("A")), Message(Role.ASSISTANT, [Text("B")])]),
        ),
    ],
)
def test_inputs_become_a_conversation_or_a_text(given: dict[str, object], task: object) -> None:
    assert asked(**given).task == task


@pytest.mark.parametrize(("stop", "read"), [("a,b", ["a", "b"]), (["a,b"], ["a,b"]), ("", []), ("<end>", ["<end>"])])
def test_stop_sequences_are_separated_by_commas_or_listed(stop: object, read: list[str]) -> None:
    assert asked(stop_sequences=stop).sampling.stop == read


def test_names_of_older_models_inputs_mean_the_same() -> None:
    request = asked(max_new_tokens=9, min_new_tokens=-1, debug=True)
    assert (request.max_output_tokens, request.sampling.min_tokens, request.ignored) == (9, None, ["debug"])


def test_the_model_is_in_the_path_or_in_the_version() -> None:
    assert asked("meta/llama:abc123").model == "meta/llama"
    body = b'{"input": {"prompt": "Hi"}}'
    assert requests.decode_for("meta/llama", body).model == "meta/llama"
    with pytest.raises(InvalidRequest) as refused:
        CODEC.decode_request(body)
    assert refused.value.param == "version"
    assert requests.names("owner/name") == ["owner/name", "name"]
    assert requests.names("name") == ["name"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"version": "a"}, "input"),
        ({"version": "a", "input": {}}, "input.prompt"),
        ({"version": "a", "input": {"prompt": 5}}, "input.prompt"),
        ({"version": "a", "input": {"prompt": "a", "temperature": 9}}, "input.temperature"),
        ({"version": "a", "input": {"messages": [{"role": "user"}]}}, "input.messages[0].content"),
        ({"version": "a", "input": {"prompt": "a"}, "webhook": "ftp://x"}, "webhook"),
        ({"version": "a", "input": {"prompt": "a"}, "webhook_events_filter": ["all"]}, "webhook_events_filter[0]"),
    ],
)
def test_what_cannot_be_is_refused_by_name(body: dict[str, object], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        CODEC.decode_request(json.dumps(body).encode())
    assert refused.value.param == param


def test_a_predictions_life() -> None:
    request = asked("meta/llama:v1")
    prediction = new_prediction(request, "abc", 1_700_000_000.5, urls("http://host", "abc"))
    first = json.loads(encode_prediction(prediction))
    assert first.keys() >= READ_BY_ITS_CLIENT | {"data_removed"}
    assert (first["status"], first["model"], first["version"], first["input"]) == (
        "starting",
        "meta/llama",
        "meta/llama:v1",
        {"prompt": "Hi"},
    )
    assert first["urls"]["stream"] == "http://host/v1/predictions/abc/stream"
    prediction.begin(1_700_000_001.0)
    for event in [TextDelta("He"), ReasoningDelta("hm"), TextDelta("llo"), UsageReport(Usage(input=3, output=2))]:
        prediction.see(event)
    assert (prediction.status, prediction.final) == ("processing", False)
    prediction.succeed(1_700_000_003.25)
    last = json.loads(encode_prediction(prediction))
    assert (last["status"], last["output"], last["logs"], last["error"]) == ("succeeded", ["He", "llo"], "hm", None)
    assert last["created_at"] == "2023-11-14T22:13:20.500Z"
    assert last["metrics"] == {
        "input_token_count": 3,
        "output_token_count": 2,
        "total_time": 2.75,
        "predict_time": 2.25,
    }
    prediction.remove_data()
    assert json.loads(encode_prediction(prediction))["data_removed"]


def test_a_prediction_may_fail_or_be_cancelled_before_it_began() -> None:
    failed = Prediction("a", "m", "v", {}, "2023-11-14T22:13:20Z")
    failed.fail(UpstreamBroken("It broke."), 1_700_000_001.0)
    assert (failed.status, failed.error, failed.final) == ("failed", "It broke.", True)
    assert failed.metrics == {"total_time": 1.0}
    cancelled = Prediction("a", "m", "v", {}, "2023-11-14T22:13:20Z")
    cancelled.cancel(1_700_000_001.0)
    assert (cancelled.status, cancelled.output) == ("canceled", None)


def events_of(stream: bytes) -> list[tuple[str, str, str]]:
    """(event, id, data) as the official client's decoder reads them: none may lack its name or its id."""
    found = []
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == ""
    for block in blocks:
        fields = [line.partition(": ") for line in block.split("\n")]
        assert [name for name, _, _ in fields[:2]] == ["event", "id"]
        assert all(name == "data" for name, _, _ in fields[2:])
        found.append((fields[0][2], fields[1][2], "\n".join(value for _, _, value in fields[2:])))
    return found


TEXT = st.text(st.characters(exclude_characters="\r", codec="utf-8"), max_size=6)
EVENTS = st.lists(
    st.one_of(
        TEXT.map(TextDelta),
        TEXT.map(ReasoningDelta),
        st.just(UsageReport(Usage(1))),
        st.just(Started("up", "m")),
        st.builds(TextDelta, TEXT, st.just(1)),
        st.just(Finished(FinishReason.LENGTH)),
    ),
    max_size=12,
)


@given(EVENTS, st.sampled_from(["close", "fail", "cancel"]))
@settings(deadline=None)
def test_any_order_of_events_is_a_legal_stream_and_reads_back(events: list[Event], end: str) -> None:
    writer: Any = CODEC.stream_writer(asked(), "id", 1_700_000_000)
    assert isinstance(writer, Failing)
    stream = b"".join([writer.feed(event) for event in events])
    stream += writer.fail(UpstreamBroken("broke")) if end == "fail" else getattr(writer, end)()
    read = events_of(stream)
    assert [event_id for _, event_id, _ in read] == [f"1700000000:{n}" for n in range(len(read))]
    said = "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == 0)
    assert "".join(data for name, _, data in read if name == "output") == said
    assert read[-1][0] == "done"
    reader = CODEC.stream_reader()
    again = reader.feed(stream) + reader.close()
    assert "".join(event.text for event in again if isinstance(event, TextDelta)) == said
    assert isinstance(again[-1], Finished if end == "close" else Failed)
    assert sum(isinstance(event, Finished | Failed) for event in again) == 1


def test_line_ends_become_what_the_format_has() -> None:
    writer = CODEC.stream_writer(asked(), "id", 1)
    assert events_of(writer.feed(TextDelta("a\r\nb\rc\n"))) == [("output", "1:0", "a\nb\nc\n")]


@pytest.mark.parametrize("status", ["starting", "processing", "queued"])
def test_a_prediction_that_goes_on_is_no_answer(status: str) -> None:
    with pytest.raises(ValueError, match=status):
        CODEC.read_response(json.dumps({"status": status, "output": ["a"]}).encode())


@pytest.mark.parametrize("status", ["failed", "canceled", "aborted"])
def test_a_prediction_that_failed_says_why(status: str) -> None:
    *_, failed = CODEC.read_response(json.dumps({"status": status, "error": "out of memory"}).encode())
    assert isinstance(failed, Failed)
    assert "out of memory" in failed.error.message


def test_a_created_prediction_tells_where_it_streams() -> None:
    assert stream_url(b'{"urls": {"stream": "https://stream/x"}}') == "https://stream/x"
    for body in (b'{"urls": {}}', b"{}", b"", b"[]"):
        with pytest.raises(ValueError):
            stream_url(body)


def test_another_protocols_request_is_carried_or_refused_by_name() -> None:
    system = Message(Role.SYSTEM, [Text("S")])
    chat = Request("m", Conversation([system, user(Text("Hi"), Image(url="u"))]), "x", max_output_tokens=5)
    assert json.loads(CODEC.encode_request(chat, "meta/llama", stream=True)) == {
        "version": "meta/llama",
        "input": {"prompt": "Hi", "system_prompt": "S", "image": "u", "max_tokens": 5},
        "stream": True,
    }
    text = Request("m", Prompts(["Hi"]), "x", sampling=Sampling(stop=["a", "b"]))
    assert json.loads(CODEC.encode_request(text, "m", stream=False))["input"] == {
        "prompt": "Hi",
        "prompt_template": "{prompt}",
        "stop_sequences": "a,b",
    }
    turns = Conversation([user(Text("A")), Message(Role.ASSISTANT, [Text("B")]), user(Text("C"))])
    for name, changed in {
        "messages": Request("m", turns, "x"),
        "n": Request("m", chat.task, "x", n=2),
        "response_format": Request("m", chat.task, "x", response_format=ResponseFormat()),
        "stop": Request("m", chat.task, "x", sampling=Sampling(stop=["a,b"])),
        "model": Request("m", Prompts(["a", "b"]), "x"),
    }.items():
        with pytest.raises(InvalidRequest) as refused:
            CODEC.encode_request(changed, "m", stream=False)
        assert refused.value.param == name


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (InvalidRequest("no", param="input.prompt"), 422, "Unprocessable"),
        (NotFound("no"), 404, "Not Found"),
        (LimitReached("no", retry_after=29.6), 429, "Too Many Requests"),
        (LimitReached("no", code="insufficient_quota"), 402, "Payment Required"),
        (UpstreamRejected("no"), 502, "Bad Gateway"),
    ],
)
def test_errors_are_problem_details(error: TokenworksError, status: int, title: str) -> None:
    assert isinstance(CODEC, OwnStatuses)
    assert CODEC.error_status(error) == status
    body = json.loads(CODEC.encode_error(error))
    assert body["status"] == status
    assert body["title"].startswith(title)
    assert "no" in body["detail"]
    if status == 429:
        assert body["detail"].startswith("Request was throttled. Your rate limit resets in ~30s.")


def test_an_upstreams_problem_keeps_its_words() -> None:
    body = b'{"title": "Input validation failed", "detail": "- input.prompt: required", "status": 422}'
    error = CODEC.read_error(422, body, provider="host", retry_after=None)
    assert isinstance(error, InvalidRequest)
    assert error.message == "- input.prompt: required"
