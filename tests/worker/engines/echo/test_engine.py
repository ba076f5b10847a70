"""Echo's answers, without a socket: every knob does what it says, and usage is exact."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from tokenworks.client import Address
from tokenworks.core.errors import ContextLengthExceeded, InternalError, InvalidRequest
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.base import OptionError, Setup
from tokenworks.worker.engines.echo.engine import Echo
from tokenworks.worker.engines.generating import EngineDied

WEATHER = wire.Tool(
    "get_weather", None, {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
)


def echo(**options: Any) -> Echo:
    return Echo(Setup("m", Address.parse("unix:/tmp/unused.sock"), options=options))


def answer(request: wire.GenerateRequest, **options: Any) -> list[Any]:
    async def collect() -> list[Any]:
        engine = echo(**options)
        await engine.start(None)
        events = [event async for batch in engine.answer(request) for event in batch]
        assert engine.running == 0
        return events

    return asyncio.run(collect())


def chat(text: str, **more: Any) -> wire.GenerateRequest:
    return wire.GenerateRequest(messages=(wire.Message("user", text),), **more)


def text(events: Sequence[Any], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, wire.Tokens) and event.index == index)


def finish(events: Sequence[Any], index: int = 0) -> wire.Finish:
    return next(event for event in events if isinstance(event, wire.Finish) and event.index == index)


def usage(events: Sequence[Any]) -> wire.Usage:
    assert isinstance(events[-1], wire.Usage)
    return events[-1]


def test_it_echoes_word_by_word() -> None:
    events = answer(chat("one two  three"))
    assert isinstance(events[0], wire.Started)
    assert [event.text for event in events if isinstance(event, wire.Tokens)] == ["one", " two", "  three"]
    assert finish(events) == wire.Finish("stop")
    assert usage(events) == wire.Usage(input=5, output=3)  # user: one two three assistant:


def test_max_tokens() -> None:
    events = answer(chat("one two three", max_tokens=2))
    assert (text(events), finish(events).reason, usage(events).output) == ("one two", "length", 2)


def test_a_stop_string_across_tokens() -> None:
    events = answer(chat("one two three four", sampling=wire.Sampling(stop=("o three",))))
    assert text(events) == "one tw"
    assert finish(events) == wire.Finish("stop", 0, "o three")
    assert usage(events).output == 3


def test_min_tokens_goes_on_past_the_end_and_past_stops() -> None:
    events = answer(chat("a b", sampling=wire.Sampling(min_tokens=5, stop=("b",))))
    assert (text(events), usage(events).output) == ("a b a b a", 5)


def test_ignore_eos_ends_at_max_tokens_only() -> None:
    events = answer(chat("a b", max_tokens=101, sampling=wire.Sampling(ignore_eos=True)))
    assert (usage(events).output, finish(events).reason) == (101, "length")


def test_a_seed_decides_the_text() -> None:
    words = " ".join(map(str, range(30)))
    first, same, other = (text(answer(chat(words, sampling=wire.Sampling(seed=seed)))) for seed in (1, 1, 2))
    assert first == same != other
    assert sorted(first.split()) == sorted(other.split()) == sorted(words.split())
    assert text(answer(chat(words, sampling=wire.Sampling(seed=1, temperature=0)))) == words


def test_n_choices_are_numbered_and_counted_together() -> None:
    events = answer(chat("a b c d e f g", n=3, sampling=wire.Sampling(seed=4)))
    assert len({text(events, index) for index in range(3)}) > 1
    assert all(finish(events, index).reason == "stop" for index in range(3))
    assert usage(events) == wire.Usage(input=9, output=21)


def test_prompts_as_text_and_tokens_and_their_echo() -> None:
    engine = echo()
    ids = engine.tokenize("three four")

    async def collect() -> list[Any]:
        await engine.start(None)
        request = wire.GenerateRequest(prompts=("one two", ids), n=2, echo=True)
        return [event async for batch in engine.answer(request) for event in batch]

    events = asyncio.run(collect())
    assert [text(events, i) for i in range(4)] == ["one twoone two"] * 2 + ["three fourthree four"] * 2
    assert usage(events) == wire.Usage(input=4, output=8)


def test_logprobs_are_deterministic_and_ordered() -> None:
    first, again = (answer(chat("one two", logprobs=3)) for _ in range(2))
    found = [event.logprobs for event in first if isinstance(event, wire.Tokens)]
    assert found == [event.logprobs for event in again if isinstance(event, wire.Tokens)]
    for (logprob,) in found:
        assert logprob.logprob <= 0
        assert logprob.top[0] == (logprob.token, logprob.logprob)
        assert [value for _, value in logprob.top] == sorted((v for _, v in logprob.top), reverse=True)
        assert len(logprob.top) == 3


@pytest.mark.parametrize(
    ("said", "choice", "forced", "called"),
    [
        ("hello", "auto", None, False),
        ("please get_weather now", "auto", None, True),
        ("please get_weather now", "none", None, False),
        ("hello", "required", None, True),
        ("hello", "required", "get_weather", True),
    ],
)
def test_tools(said: str, choice: str, forced: str | None, called: bool) -> None:
    events = answer(chat(said, tools=(WEATHER,), tool_choice=choice, forced_tool=forced))
    calls = [event for event in events if isinstance(event, wire.ToolCall)]
    assert bool(calls) is called
    assert finish(events).reason == ("tool_calls" if called else "stop")
    if called:
        assert calls[0].name == "get_weather"
        assert calls[0].id
        assert json.loads("".join(call.arguments for call in calls)) == {"city": ""}
        assert not text(events)


def test_after_a_tool_result_it_answers() -> None:
    request = wire.GenerateRequest(
        messages=(wire.Message("user", "get_weather"), wire.Message("tool", "sunny today", call_id="c")),
        tools=(WEATHER,),
    )
    assert text(answer(request)) == "sunny today"


def test_json_by_schema_and_without() -> None:
    assert json.loads(text(answer(chat("x", json=True)))) == {}
    assert json.loads(text(answer(chat("x", json=True, json_schema=WEATHER.parameters)))) == {"city": ""}


def test_what_does_not_fit_the_context_is_refused() -> None:
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 16 tokens"):
        answer(chat("word " * 20), context=16)
    with pytest.raises(ContextLengthExceeded):
        answer(chat("word", max_tokens=14), context=16)
    events = answer(chat("word", sampling=wire.Sampling(ignore_eos=True)), context=16)
    assert usage(events).output == 13


@pytest.mark.parametrize(
    "request_", [wire.GenerateRequest(), wire.GenerateRequest(messages=(), prompts=("x",)), chat("x", n=1000)]
)
def test_nonsense_is_refused(request_: wire.GenerateRequest) -> None:
    with pytest.raises(InvalidRequest):
        answer(request_)


def test_options_are_checked() -> None:
    for wrong, named in (({"rat": "1"}, "did you mean 'rate'"), ({"rate": "x"}, "rate=x"), ({"fault": "q"}, "fault=q")):
        with pytest.raises(OptionError, match=named):
            echo(**wrong)
    assert echo(rate="2.5", tokens="7").options.tokens == 7


def test_faults_before_and_after_the_answer() -> None:
    with pytest.raises(InternalError, match="error_before"):
        answer(chat("fault=error_before"))
    with pytest.raises(InvalidRequest, match="Unknown fault 'nonsense'"):
        answer(chat("fault=nonsense"))
    assert usage(answer(chat("a fault=wrong_usage"))).output == 20


@pytest.mark.parametrize(("fault", "tokens"), [("cut", 3), ("crash", 3), ("cut", 0)])
def test_faults_in_the_middle(fault: str, tokens: int) -> None:
    async def collect() -> list[Any]:
        engine, events = echo(fault=fault, fault_after=tokens), []
        engine._death = asyncio.get_running_loop().create_future()
        with pytest.raises(EngineDied):
            async for batch in engine.answer(chat("a b c d e f")):
                events += batch
        assert engine.alive() is (fault != "crash")
        assert engine.running == 0
        return events

    assert len([event for event in asyncio.run(collect()) if isinstance(event, wire.Tokens)]) == tokens


def test_vectors_are_deterministic_and_near_for_texts_with_words_in_common() -> None:
    request = wire.GenerateRequest(embed=("the blue sky", "The  blue sea", "42", "the blue sky"), dimensions=256)
    events = answer(request)
    vectors = [event.values for event in events if isinstance(event, wire.Vector)]
    assert [event.index for event in events if isinstance(event, wire.Vector)] == [0, 1, 2, 3]
    assert all(len(vector) == 256 and abs(sum(v * v for v in vector) - 1) < 1e-9 for vector in vectors)
    near, far = (sum(map(float.__mul__, vectors[0], other)) for other in vectors[1:3])
    assert near > 0.5 > far
    assert vectors[0] == vectors[3]
    assert finish(events) == wire.Finish("stop")
    assert usage(events) == wire.Usage(input=10)
    assert answer(request)[1:] == events[1:]


def test_a_ranking_falls_and_ends_at_top_n() -> None:
    documents = ("nothing", "the capital of France", "capital")
    ranked = [
        e for e in answer(wire.GenerateRequest(rank=wire.Ranking("capital", documents))) if isinstance(e, wire.Ranked)
    ]
    assert [event.index for event in ranked] == [2, 1, 0]
    assert ranked[0].score == pytest.approx(1.0)
    first = answer(wire.GenerateRequest(rank=wire.Ranking("capital", documents, 1)))
    assert [event.index for event in first if isinstance(event, wire.Ranked)] == [2]
    assert usage(first) == wire.Usage(input=7)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (wire.GenerateRequest(embed=("a",), prompts=("a",)), InvalidRequest),
        (wire.GenerateRequest(), InvalidRequest),
        (wire.GenerateRequest(embed=("a",), dimensions=10**9), InvalidRequest),
        (wire.GenerateRequest(embed=("a " * 100,)), ContextLengthExceeded),
        (wire.GenerateRequest(embed=("a fault=error_before",)), InternalError),
        (wire.GenerateRequest(embed=("a fault=cut",)), EngineDied),
    ],
)
def test_what_cannot_be_embedded_is_refused(request_: wire.GenerateRequest, error: type[Exception]) -> None:
    with pytest.raises(error):
        answer(request_, context=32)
