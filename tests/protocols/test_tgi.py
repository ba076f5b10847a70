"""TGI: its many nulls, its three paths, its errors, and streams that end with everything in one chunk."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    LimitReached,
    NotFound,
    TokenworksError,
    Unauthenticated,
    Unavailable,
    UpstreamBroken,
    UpstreamOverloaded,
    UpstreamRejected,
)
from tokenworks.core.events import (
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.request import Embeddings, Prompts, Request, ResponseFormat, Sampling
from tokenworks.core.usage import Usage
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation, OwnStatuses
from tokenworks.protocols.tgi import info

ROOT, GENERATE, STREAM = codec("tgi"), codec("tgi_generate"), codec("tgi_generate_stream")
USAGE = Usage(input=6, output=2)
EVENTS: list[Event] = [
    Started("up", "m"),
    TextDelta("Hi"),
    TextDelta(" you"),
    Finished(FinishReason.STOP),
    UsageReport(USAGE),
]


def asked(**parameters: object) -> Request:
    return ROOT.decode_request(json.dumps({"inputs": "Hello", "parameters": parameters}).encode())


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """Every line of a stream as its clients read it."""
    blocks = stream.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data:{") for block in blocks)
    return [json.loads(block.removeprefix("data:")) for block in blocks]


def written(request: Request, events: list[Event]) -> list[dict[str, Any]]:
    writer = ROOT.stream_writer(request, "id", 1)
    return chunks(b"".join([writer.feed(event) for event in events]) + writer.close())


@pytest.mark.parametrize(
    ("parameters", "sampling"),
    [
        ({}, Sampling(temperature=0.0)),
        ({"do_sample": True}, Sampling(temperature=1.0)),
        ({"temperature": 0.5}, Sampling(temperature=0.5)),
        ({"top_k": 5}, Sampling(temperature=1.0, top_k=5)),
        ({"top_p": 0.9, "seed": 3}, Sampling(temperature=1.0, top_p=0.9, seed=3)),
        ({"top_p": 1.0}, Sampling(temperature=1.0)),
        ({"typical_p": 0.9}, Sampling(temperature=1.0, typical_p=0.9)),
        ({"stop": ["a"], "repetition_penalty": 1.2}, Sampling(temperature=0.0, stop=["a"], repetition_penalty=1.2)),
    ],
)
def test_it_is_greedy_until_a_knob_is_turned(parameters: dict[str, object], sampling: Sampling) -> None:
    assert asked(**parameters).sampling == sampling


def test_defaults_of_the_protocol() -> None:
    request = ROOT.decode_request(b'{"inputs": "Hello", "parameters": null}')
    assert (request.model, request.task, request.max_output_tokens) == ("", Prompts(["Hello"]), 20)
    assert (request.stream, request.logprobs, request.ignored, request.own) == (False, False, [], [])
    assert asked(details=True).logprobs


@pytest.mark.parametrize(
    ("grammar", "expected"),
    [
        ({"type": "json", "value": {"type": "object"}}, ResponseFormat(schema={"type": "object"})),
        ({"type": "json", "value": '{"type": "array"}'}, ResponseFormat(schema={"type": "array"})),
        (
            {"type": "json_schema", "value": {"name": "n", "schema": {"type": "object"}}},
            ResponseFormat(schema={"type": "object"}, name="n"),
        ),
        ({"type": "regex", "value": "[a-z]+"}, None),
    ],
)
def test_a_grammar_is_a_schema_or_its_own(grammar: dict[str, object], expected: ResponseFormat | None) -> None:
    request = asked(grammar=grammar)
    assert request.response_format == expected
    assert request.own == ([] if expected else ["parameters.grammar"])


def test_what_only_this_protocol_has_is_named_and_what_does_nothing_is_reported() -> None:
    request = asked(watermark=True, truncate=100, best_of=2, decoder_input_details=True, new_knob=1)
    assert request.own == [f"parameters.{name}" for name in ("best_of", "truncate", "watermark")]
    assert request.ignored == ["decoder_input_details", "new_knob"]
    assert asked(watermark=False, best_of=1, decoder_input_details=False).own == []
    assert asked(adapter_id="other-model").model == "other-model"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"parameters": {}}, "inputs"),
        ({"inputs": "", "parameters": {}}, "inputs"),
        ({"inputs": "a", "parameters": {"temperature": 0}}, "parameters.temperature"),
        ({"inputs": "a", "parameters": {"top_p": 1.5}}, "parameters.top_p"),
        ({"inputs": "a", "parameters": {"max_new_tokens": 0}}, "parameters.max_new_tokens"),
        ({"inputs": "a", "parameters": {"stop": [""]}}, "parameters.stop"),
        ({"inputs": "a", "parameters": {"grammar": {"type": "gbnf", "value": ""}}}, "parameters.grammar.type"),
        ({"inputs": "a", "parameters": {"grammar": {"type": "json", "value": "no json"}}}, None),
        ({"inputs": "a", "stream": "yes"}, "stream"),
    ],
)
def test_what_cannot_be_is_refused_by_name(body: dict[str, object], param: str | None) -> None:
    with pytest.raises(InvalidRequest) as refused:
        ROOT.decode_request(json.dumps(body).encode())
    assert refused.value.param == param


def test_each_path_answers_in_its_form() -> None:
    body = b'{"inputs": "Hello", "parameters": {"details": true}, "stream": true}'
    assert (ROOT.decode_request(body).stream, STREAM.decode_request(body).stream) == (True, True)
    plain = GENERATE.decode_request(body)
    assert not plain.stream
    bare = json.loads(GENERATE.encode_response(plain, EVENTS, "id", 1))
    listed = json.loads(ROOT.encode_response(ROOT.decode_request(body), EVENTS, "id", 1))
    assert listed == [bare]
    assert bare["generated_text"] == "Hi you"
    assert bare["details"]["generated_tokens"] == 2


def test_texts_to_embed_are_told_from_a_prompt_by_what_clients_send() -> None:
    assert ROOT.decode_request(b'{"inputs": "a"}').task == Embeddings(["a"])
    assert ROOT.decode_request(b'{"inputs": ["a", "b"], "normalize": true}').task == Embeddings(["a", "b"])
    assert isinstance(ROOT.decode_request(b'{"inputs": "a", "stream": false}').task, Prompts)
    assert isinstance(GENERATE.decode_request(b'{"inputs": "a"}').task, Prompts)


def test_the_last_chunk_of_a_stream_tells_the_whole() -> None:
    *texts, last = written(asked(details=True), EVENTS)
    assert [chunk["token"]["text"] for chunk in texts] == ["Hi", " you"]
    assert all(chunk["generated_text"] is None and chunk["details"] is None for chunk in texts)
    assert last["generated_text"] == "Hi you"
    assert last["token"]["special"]
    assert last["details"] == {
        "finish_reason": "eos_token",
        "generated_tokens": 2,
        "seed": None,
        "input_length": 6,
    }


def test_the_full_text_begins_with_the_prompt_when_asked_for() -> None:
    assert written(asked(return_full_text=True), EVENTS)[-1]["generated_text"] == "HelloHi you"


@pytest.mark.parametrize(
    ("finished", "reason"),
    [
        (Finished(FinishReason.LENGTH), "length"),
        (Finished(FinishReason.STOP), "eos_token"),
        (Finished(FinishReason.STOP, stop_sequence="END"), "stop_sequence"),
    ],
)
def test_reasons_to_finish(finished: Finished, reason: str) -> None:
    assert written(asked(), [TextDelta("a"), finished])[-1]["details"]["finish_reason"] == reason


LEGAL = st.lists(
    st.one_of(
        st.text(max_size=5).map(TextDelta),
        st.text(max_size=3).map(ReasoningDelta),
        st.builds(ToolCallDelta, st.integers(0, 1), st.text(max_size=3), st.just("c"), st.just("f")),
        st.builds(UsageReport, st.builds(Usage, st.integers(1, 9), output=st.integers(0, 9))),
        st.builds(TextDelta, st.text(max_size=3), st.just(1)),
    ),
    max_size=12,
)


@given(LEGAL, st.booleans(), st.sampled_from([FinishReason.STOP, FinishReason.LENGTH]))
@settings(deadline=None)
def test_any_order_of_events_is_a_legal_stream_and_reads_back(
    events: list[Event], details: bool, reason: FinishReason
) -> None:
    events = [Started("", ""), *events, Finished(reason)]
    request = asked(details=details)
    writer = ROOT.stream_writer(request, "id", 1)
    stream = b"".join([writer.feed(event) for event in events]) + writer.close()
    *texts, last = chunks(stream)
    said = "".join(e.text for e in events if isinstance(e, TextDelta | ReasoningDelta) and e.index == 0)
    assert "".join(chunk["token"]["text"] for chunk in texts) == last["generated_text"] == said
    assert [chunk["index"] for chunk in [*texts, last]] == list(range(1, len(texts) + 2))
    reader = ROOT.stream_reader()
    again = reader.feed(stream) + reader.close()
    assert "".join(event.text for event in again if isinstance(event, TextDelta)) == said
    assert again[-1] == Finished(reason)
    reports = [event for event in events if isinstance(event, UsageReport)]
    assert [event for event in again if isinstance(event, UsageReport)] == reports[-1:]


def upstream_chunk(text: str, *, special: bool = False, **end: object) -> bytes:
    token = {"id": 7, "text": text, "logprob": -0.5, "special": special}
    return b"data:" + json.dumps({"index": 1, "token": token, "generated_text": None, "details": None, **end}).encode()


@pytest.mark.parametrize("details", [False, True])
def test_the_relay_forwards_chunks_and_holds_the_last_one_back(details: bool) -> None:
    seen = Observation()
    relay = ROOT.passthrough(STREAM.decode_request(asked(details=details).body), seen)
    end = {"finish_reason": "length", "generated_tokens": 2, "seed": 5, "input_length": 6}
    first = upstream_chunk("Hi") + b"\n\n"
    assert relay.feed(b":ka\n\n" + first) == first
    assert relay.feed(upstream_chunk(" you", generated_text="Hi you", details=end) + b"\n\n") == b""
    (last,) = chunks(relay.close())
    assert last["generated_text"] == "Hi you"
    assert last["details"] == (end if details else None)
    assert (seen.usage, seen.deltas, seen.finish_reasons) == (USAGE, 2, {0: "length"})


def test_a_stream_without_its_last_chunk_was_cut() -> None:
    relay = ROOT.passthrough(asked(), Observation())
    relay.feed(upstream_chunk("Hi") + b"\n\n")
    with pytest.raises(UpstreamBroken):
        relay.close()


def test_the_relay_asks_for_what_counts_and_takes_it_out_again() -> None:
    request = asked(temperature=0.5, adapter_id="public")
    sent = json.loads(ROOT.rewrite_request(request, "there"))
    assert sent["parameters"] == {"temperature": 0.5, "details": True, "decoder_input_details": True}
    answer = {
        "generated_text": "Hi you",
        "details": {
            "finish_reason": "length",
            "generated_tokens": 2,
            "seed": None,
            "prefill": [{"id": 1, "text": "x", "logprob": None}] * 6,
            "tokens": [],
        },
    }
    seen = Observation()
    assert json.loads(ROOT.passthrough(request, seen).whole(json.dumps([answer]).encode())) == [
        {"generated_text": "Hi you"}
    ]
    assert (seen.usage, seen.finish_reasons) == (USAGE, {0: "length"})
    with_details = GENERATE.decode_request(asked(details=True).body)
    (bare,) = [json.loads(ROOT.passthrough(with_details, Observation()).whole(json.dumps(answer).encode()))]
    assert bare["details"]["prefill"] == []


def test_another_protocols_request_is_carried_or_refused_by_name() -> None:
    request = Request("m", Prompts(["Hi"]), "x", sampling=Sampling(top_p=1.0, top_k=-1), max_output_tokens=5)
    assert json.loads(ROOT.encode_request(request, "m", stream=True)) == {
        "inputs": "Hi",
        "parameters": {"details": True, "do_sample": True, "max_new_tokens": 5},
        "stream": True,
    }
    typical = Request("m", Prompts(["Hi"]), "x", sampling=Sampling(typical_p=0.9))
    assert json.loads(ROOT.encode_request(typical, "m", stream=True))["parameters"]["typical_p"] == 0.9
    for name, changed in {
        "n": Request("m", Prompts(["Hi"]), "x", n=2),
        "prompt": Request("m", Prompts([[1, 2]]), "x"),
        "echo": Request("m", Prompts(["Hi"], echo=True), "x"),
        "min_p": Request("m", Prompts(["Hi"]), "x", sampling=Sampling(min_p=0.1)),
        "logit_bias": Request("m", Prompts(["Hi"]), "x", sampling=Sampling(logit_bias={"1": 1.0})),
    }.items():
        with pytest.raises(InvalidRequest) as refused:
            ROOT.encode_request(changed, "m", stream=False)
        assert refused.value.param == name


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("no"), 422, "validation"),
        (ContextLengthExceeded("no"), 422, "validation"),
        (LimitReached("no"), 429, "overloaded"),
        (UpstreamOverloaded("no"), 429, "overloaded"),
        (UpstreamBroken("no"), 500, "incomplete_generation"),
        (UpstreamRejected("no"), 424, "generation"),
        (Unavailable("no"), 503, "generation"),
        (Unauthenticated("no"), 401, None),
        (NotFound("no"), 404, None),
    ],
)
def test_errors_have_its_shape_and_status(error: TokenworksError, status: int, kind: str | None) -> None:
    assert isinstance(ROOT, OwnStatuses)
    assert ROOT.error_status(error) == status
    body = json.loads(ROOT.encode_error(error))
    assert body == {"error": "no"} | ({"error_type": kind} if kind else {})
    (chunk,) = chunks(ROOT.encode_stream_error(error))
    assert chunk == body


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (422, {"error": "Input validation error: bad", "error_type": "validation"}, InvalidRequest),
        (
            422,
            {
                "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 512. Given: 600",
                "error_type": "validation",
            },
            ContextLengthExceeded,
        ),
        (424, {"error": "Request failed during generation", "error_type": "generation"}, UpstreamBroken),
        (429, {"error": "Model is overloaded", "error_type": "overloaded"}, UpstreamOverloaded),
        (401, {"error": "secret words about our key"}, UpstreamRejected),
        (500, {"error": {"message": "in another shape"}}, UpstreamBroken),
    ],
)
def test_an_upstreams_error_keeps_its_cause(status: int, said: dict[str, object], expected: type) -> None:
    error = ROOT.read_error(status, json.dumps(said).encode(), provider="host", retry_after=None)
    assert type(error) is expected
    assert error.upstream_status == status
    assert "secret" not in error.message


def test_bodies_of_a_server_that_speaks_of_itself() -> None:
    said = json.loads(info.info("m", context_length=2048))
    assert (said["model_id"], said["max_total_tokens"], said["max_input_tokens"]) == ("m", 2048, 2047)
    assert json.loads(info.encode_tokenize([(5, "Grüße"), (6, " Welt")])) == [
        {"id": 5, "text": "Grüße", "start": 0, "stop": 5},
        {"id": 6, "text": " Welt", "start": 5, "stop": 10},
    ]
    assert info.decode_tokenize(b'{"inputs": "a"}').add_special_tokens
    with pytest.raises(InvalidRequest):
        info.decode_tokenize(b"{}")
