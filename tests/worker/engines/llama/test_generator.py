"""The engine with real weights behind the worker protocol: what callers can ask for, and what is left behind."""

import asyncio
import contextlib
import json
import random
import re
from typing import Any

import pytest

from tokenworks.core.errors import ContextLengthExceeded, InvalidRequest, LimitReached, Unavailable
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama.observed import PREFIX

GREEDY = wire.Sampling(temperature=0.0)
CHAT = (wire.Message("user", "Tell me about the sea."),)
TOOL = wire.Tool(
    "get_weather",
    "Weather of a city",
    {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 24}, "unit": {"enum": ["C", "F"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
)


def finish(events: list[wire.Event]) -> wire.Finish:
    (found,) = [event for event in events if isinstance(event, wire.Finish)]
    return found


def usage(events: list[wire.Event]) -> wire.Usage:
    assert isinstance(events[-1], wire.Usage)
    return events[-1]


def test_an_answer_begins_and_ends_as_promised(bench: Any, ids_of: Any, text_of: Any) -> None:
    events = bench.ask(messages=CHAT, max_tokens=8, sampling=GREEDY, tenant="first")
    assert isinstance(events[0], wire.Started)
    assert events[0].model == "m"
    assert text_of(events).startswith("The sea")
    assert finish(events).reason == "length"
    assert len(ids_of(events)) == usage(events).output == 8
    assert bench.generator.detokenize(ids_of(events)) == text_of(events)


def test_cached_tokens_are_told_and_never_cross_tenants(bench: Any) -> None:
    one = usage(bench.ask(messages=CHAT, max_tokens=30, sampling=GREEDY, tenant="a"))
    two = usage(bench.ask(messages=CHAT, max_tokens=2, sampling=GREEDY, tenant="a"))
    other = usage(bench.ask(messages=CHAT, max_tokens=2, sampling=GREEDY, tenant="b"))
    salted = usage(bench.ask(messages=CHAT, max_tokens=2, sampling=GREEDY, tenant="a", salt="of one of its users"))
    total = one.input + one.cached_input
    public = len(bench.scheduler.prefixes.public)
    assert 0 < public < total - 5
    assert (two.input, two.cached_input) == (1, total - 1)
    assert (other.input, other.cached_input) == (salted.input, salted.cached_input) == (total - public, public)


def test_a_seed_repeats_itself_whatever_else_runs(bench: Any, ids_of: Any) -> None:
    seeded = {"messages": CHAT, "max_tokens": 16, "sampling": wire.Sampling(temperature=1.0, seed=5), "tenant": "s"}
    alone = ids_of(bench.ask(**seeded))
    others = [{"messages": CHAT, "max_tokens": 16, "tenant": f"o{n}"} for n in range(5)]
    busy = bench.at_once(seeded, *others)
    assert ids_of(busy[0]) == alone
    assert ids_of(bench.ask(**seeded | {"sampling": wire.Sampling(temperature=1.0, seed=6)})) != alone


def test_choices_differ_and_their_prompt_counts_once(bench: Any, text_of: Any) -> None:
    sampling = wire.Sampling(temperature=1.0, seed=1)
    events = bench.ask(prompts=("Once", "Two men"), n=2, max_tokens=6, sampling=sampling, tenant="n")
    texts = [text_of(events, index) for index in range(4)]
    assert len(set(texts)) == 4
    assert sum(isinstance(event, wire.Finish) for event in events) == 4
    assert usage(events).input == len(bench.generator.tokenize("Once")) + len(bench.generator.tokenize("Two men"))
    assert usage(events).output == 24


def test_stop_strings_are_found_across_tokens(bench: Any, text_of: Any) -> None:
    whole = text_of(bench.ask(messages=CHAT, max_tokens=24, sampling=GREEDY))
    stop = whole[21:27]
    events = bench.ask(messages=CHAT, max_tokens=24, sampling=wire.Sampling(temperature=0.0, stop=("@@", stop)))
    assert text_of(events) == whole[: whole.index(stop)]
    assert finish(events) == wire.Finish("stop", 0, stop)


def test_characters_of_many_tokens_come_whole(bench: Any, text_of: Any) -> None:
    prompt = "The emoji of a rocket is 🚀. Again: 🚀🚀🚀🚀🚀🚀"
    events = bench.ask(prompts=(prompt,), max_tokens=20, sampling=GREEDY)
    assert "🚀" in text_of(events)
    assert not any("\ufffd" in event.text for event in events if isinstance(event, wire.Tokens))


def test_logprobs_are_the_models_own(bench: Any, ids_of: Any) -> None:
    sampling = wire.Sampling(temperature=0.0, logit_bias={"30": -100.0})
    events = bench.ask(prompts=("1 2 3 4 5",), max_tokens=4, sampling=sampling, logprobs=3)
    records = [record for event in events if isinstance(event, wire.Tokens) for record in event.logprobs or ()]
    assert len(records) == len(ids_of(events)) == 4
    for record in records:
        assert len(record.top) == 3
        assert record.logprob <= record.top[0][1] <= 0
        assert [value for _, value in record.top] == sorted((value for _, value in record.top), reverse=True)


def test_the_end_is_kept_off(bench: Any, ids_of: Any) -> None:
    short = (wire.Message("user", "Answer with one word: is water wet?"),)
    ends = bench.generator.intake.model.ends
    free = ids_of(bench.ask(messages=short, max_tokens=60, sampling=GREEDY))
    assert free[-1] in ends
    least = len(free) + 5
    held = ids_of(bench.ask(messages=short, max_tokens=60, sampling=wire.Sampling(temperature=0.0, min_tokens=least)))
    assert len(held) >= least
    endless = bench.ask(messages=short, max_tokens=40, sampling=wire.Sampling(temperature=0.0, ignore_eos=True))
    assert not ends & set(ids_of(endless))
    assert finish(endless).reason == "length"


def test_a_schema_is_kept_and_ends_the_answer(bench: Any, text_of: Any) -> None:
    schema = TOOL.parameters
    requests = [{"messages": CHAT, "json_schema": schema, "max_tokens": 80, "tenant": str(n)} for n in range(6)]
    for events in bench.at_once(*requests):
        found = json.loads(text_of(events))
        assert set(found) == {"city", "unit"}
        assert found["unit"] in ("C", "F")
        assert finish(events).reason == "stop"


def test_what_is_forced_is_not_computed_token_by_token(bench: Any, ids_of: Any) -> None:
    schema = {"const": {"a_rather_long_name_that_is_given": "and a value that is given as well, word by word"}}
    before = bench.scheduler.counts.steps
    events = bench.ask(messages=CHAT, json_schema=schema, max_tokens=80, sampling=GREEDY)
    assert len(ids_of(events)) > 12
    assert bench.scheduler.counts.steps - before < len(ids_of(events)) / 2


GBNF = 'root ::= ("red" | "green") " " [0-9] [0-9]'


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ({"regex": "(yes|no), [a-z]{3}!"}, "(yes|no), [a-z]{3}!"),
        ({"grammar": GBNF}, "(red|green) [0-9]{2}"),
        ({"grammar": 'start: "a" | "bc" "d"'}, "a|bcd"),
    ],
)
def test_an_answer_matches_its_grammar(bench: Any, text_of: Any, form: dict[str, str], pattern: str) -> None:
    for n in range(3):
        events = bench.ask(messages=CHAT, max_tokens=40, tenant=f"g{n}", **form)
        assert re.fullmatch(pattern, text_of(events)), text_of(events)
        assert next(event.reason for event in events if isinstance(event, wire.Finish)) == "stop"


def test_a_tool_is_called_when_it_must_be(bench: Any) -> None:
    for more in ({"tool_choice": "required"}, {"forced_tool": "get_weather"}):
        events = bench.ask(messages=CHAT, tools=(TOOL,), max_tokens=80, **more)
        calls = [event for event in events if isinstance(event, wire.ToolCall)]
        assert calls[0].name == "get_weather"
        assert calls[0].id
        assert set(json.loads("".join(call.arguments for call in calls))) == {"city", "unit"}
        assert finish(events).reason == "tool_calls"


CODED = wire.Tool(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {"zq": {"enum": ["f-1", "g-2"]}, "n": {"type": "integer", "maximum": 9, "minimum": 0}},
        "required": ["zq", "n"],
    },
    strict=True,
)
OPENING = '<tool_call>\n{"name": "get_weather", "arguments":'


@pytest.mark.parametrize("opening", [OPENING, OPENING + ' {"', 'First.\n[{"a": 1}]' + OPENING])
def test_a_strict_call_that_nobody_demands_matches_its_schema(bench: Any, opening: str) -> None:
    """It is begun for the model, which would not write such arguments of its own will; afterwards it is free again."""
    resume = (tuple(bench.generator.intake.model.tokenize(opening, special=False)),)
    asked = {"messages": CHAT, "tools": (CODED,), "max_tokens": len(resume[0]) + 24, "resume": resume}
    ways: list[dict[str, Any]] = [{}, {"logprobs": 1}, {"sampling": wire.Sampling(stop=("g-2x", "f-1x"))}]
    for events in bench.at_once(*[{**asked, **more, "tenant": f"s{n}"} for n, more in enumerate(ways)]):
        call = "".join(event.arguments for event in events if isinstance(event, wire.ToolCall) and event.call == 0)
        written = json.loads('{"' * opening.endswith('{"') + call)
        assert written["zq"] in ("f-1", "g-2") and written["n"] in range(10)
        assert set(written) == {"zq", "n"}


def test_a_schema_that_cannot_be_kept_is_refused_by_name(bench: Any) -> None:
    odd = wire.Tool("f", parameters={"type": "object", "properties": {"x": {"type": "odd"}}}, strict=True)
    with pytest.raises(InvalidRequest) as caught:
        bench.ask(messages=CHAT, tools=(odd,), max_tokens=9)
    assert caught.value.param == "tools"


def test_echo_gives_the_prompt_first(bench: Any, text_of: Any) -> None:
    events = bench.ask(prompts=("Once upon", [5345, 2151]), max_tokens=2, echo=True, sampling=GREEDY)
    assert text_of(events, 0).startswith("Once upon")
    assert text_of(events, 1).startswith(bench.generator.detokenize([5345, 2151]))


@pytest.mark.parametrize(
    ("request_", "error", "param"),
    [
        ({}, InvalidRequest, "messages"),
        ({"messages": ()}, InvalidRequest, "messages"),
        ({"messages": CHAT, "prompts": ("a",)}, InvalidRequest, "messages"),
        ({"messages": CHAT, "max_tokens": 2000}, ContextLengthExceeded, "messages"),
        ({"prompts": ("word " * 2000,)}, ContextLengthExceeded, "prompt"),
        ({"prompts": ([10**9],)}, InvalidRequest, "prompt"),
        ({"prompts": ("a",), "n": 129}, InvalidRequest, "n"),
        ({"prompts": ("a",), "logprobs": 51}, InvalidRequest, "logprobs"),
        ({"prompts": ("a",), "priority": "urgent"}, InvalidRequest, "priority"),
        ({"prompts": ("a",), "sampling": wire.Sampling(logit_bias={"x": 1.0})}, InvalidRequest, "logit_bias"),
        ({"messages": CHAT, "json_schema": {"type": "nonsense"}}, InvalidRequest, "response_format"),
        ({"messages": CHAT, "regex": "(unclosed"}, InvalidRequest, "grammar"),
        ({"messages": CHAT, "grammar": "root ::= ((("}, InvalidRequest, "grammar"),
        ({"messages": CHAT, "grammar": "nothing at all"}, InvalidRequest, "grammar"),
        ({"messages": CHAT, "tools": (TOOL,), "forced_tool": "none"}, InvalidRequest, "tool_choice"),
        ({"prompts": ("a",), "resume": ((1,), (2,))}, InvalidRequest, "resume"),
        ({"prompts": ("a",), "max_tokens": 2, "resume": ((1, 2),)}, InvalidRequest, "resume"),
        ({"prompts": ("a",), "resume": ((2,),)}, InvalidRequest, "resume"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_begins(bench: Any, request_: Any, error: Any, param: str) -> None:
    with pytest.raises(error) as raised:
        bench.ask(**request_)
    assert raised.value.param == param
    bench.assert_empty()


def test_a_resumed_answer_tells_only_what_is_new(bench: Any, ids_of: Any, text_of: Any) -> None:
    """Cut anywhere, also within a character or a stop string, the two parts make the whole."""
    asked: dict[str, Any] = {"prompts": ("Again and again: 🚀🚀🚀🚀🚀",), "max_tokens": 10, "sampling": GREEDY}
    whole = bench.ask(**asked)
    for cut in range(1, 9):
        given = ids_of(whole)[:cut]
        shown = "".join(
            event.text for event in whole if isinstance(event, wire.Tokens) and event.ids and event.ids[0] in given
        )
        rest = bench.ask(**asked, resume=(tuple(given),))
        assert ids_of(rest) == ids_of(whole)[cut:]
        assert len(text_of(whole)) - len(text_of(rest)) <= len(shown)
        assert text_of(whole).endswith(text_of(rest))
        assert usage(rest).output == 10 - cut


def test_a_full_queue_refuses_with_a_time(other_bench: Any) -> None:
    bench = other_bench(slots=1, queue=2, cache=0)

    async def flood() -> list[Any]:
        asked = [{"prompts": ("a",), "max_tokens": 20, "tenant": f"t{n % 2}"} for n in range(8)]
        return await asyncio.gather(*[bench.answer(**one) for one in asked], return_exceptions=True)

    try:
        results = bench.runner.run(flood())
        refused = [result for result in results if isinstance(result, LimitReached | Unavailable)]
        assert refused
        assert all(error.retry_after and error.retry_after >= 1 for error in refused)
        assert len(refused) + sum(isinstance(result, list) for result in results) == 8
        bench.assert_empty()
    finally:
        bench.close()


def test_a_deadline_ends_an_answer(bench: Any) -> None:
    with pytest.raises(Unavailable) as raised:
        bench.ask(prompts=("a",), sampling=wire.Sampling(ignore_eos=True), deadline=0.2)
    assert raised.value.code == "deadline_exceeded"
    bench.assert_empty()


def test_whoever_leaves_frees_everything(bench: Any) -> None:
    """Random callers who leave at once, in the middle, or stay; of several tenants and classes."""
    rng = random.Random(4)

    async def caller(number: int) -> None:
        asked = {
            "prompts": (f"{number} " * rng.randint(1, 20),),
            "max_tokens": rng.randint(1, 8),
            "tenant": f"t{number % 3}",
            "priority": rng.choice(("interactive", "standard", "batch")),
            "n": rng.choice((1, 1, 2)),
        }
        events = bench.events(**asked)
        leaves = rng.choice((0, 1, 2, 4, 100))
        async with contextlib.aclosing(events):
            async for _ in events:
                leaves -= 1
                if leaves < 0:
                    return

    async def all_of_them() -> None:
        callers = [asyncio.create_task(caller(number)) for number in range(30)]
        for task in callers[::7]:
            await asyncio.sleep(0.02)
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    bench.runner.run(all_of_them())
    bench.assert_empty()


def test_a_kernel_that_fails_is_the_engines_end(other_bench: Any) -> None:
    from tokenworks.worker.engines.generating import EngineDied
    from tokenworks.worker.engines.llama.kernel import KernelFailed

    bench = other_bench(slots=1, cache=0)

    def fail(_: Any) -> Any:
        raise KernelFailed("llama_decode failed with -3")

    try:
        bench.generator.runner.kernel.compute = fail
        with pytest.raises(EngineDied):
            bench.ask(prompts=("a",), max_tokens=2)
        with pytest.raises(Unavailable, match="restarting"):
            bench.ask(embed=("a",))
        assert bench.runner.run(bench.generator.died()) == "llama_decode failed with -3"
        with pytest.raises(Unavailable, match="restarting"):
            bench.ask(prompts=("a",), max_tokens=2)
    finally:
        bench.close()


def test_texts_become_vectors_of_length_one(bench: Any) -> None:
    texts = ("The cat sat on the mat.", "A cat is sitting on a rug.", "Interest rates rose by a quarter.")
    events = bench.ask(embed=texts)
    vectors = [event.values for event in events if isinstance(event, wire.Vector)]
    assert [event.index for event in events if isinstance(event, wire.Vector)] == [0, 1, 2]
    assert {len(vector) for vector in vectors} == {bench.generator.intake.model.dimensions}
    assert all(sum(x * x for x in vector) == pytest.approx(1) for vector in vectors)
    alike, apart = (sum(a * b for a, b in zip(vectors[0], other, strict=True)) for other in vectors[1:])
    assert alike > apart
    assert usage(events).input == sum(len(bench.generator.tokenize(text)) for text in texts)
    assert finish(events).reason == "stop"
    (short,) = [event.values for event in bench.ask(embed=texts[:1], dimensions=8) if isinstance(event, wire.Vector)]
    assert len(short) == 8
    ids = bench.generator.tokenize(texts[0])
    (again,) = [event.values for event in bench.ask(embed=(ids,)) if isinstance(event, wire.Vector)]
    assert again == pytest.approx(vectors[0], abs=1e-6)  # alone it may be added up in another order


def test_documents_are_ranked(bench: Any) -> None:
    documents = ("Stocks fell on Monday.", "The cat sat on the mat.", "Bond yields rose.")
    events = bench.ask(rank=wire.Ranking("A cat on a mat", documents, 2))
    ranked = [event for event in events if isinstance(event, wire.Ranked)]
    assert len(ranked) == 2
    assert ranked[0].index == 1
    assert ranked[0].score >= ranked[1].score


@pytest.mark.parametrize(
    ("request_", "error", "param"),
    [
        ({"embed": ("",)}, InvalidRequest, "input"),
        ({"embed": ("a",), "dimensions": 10**6}, InvalidRequest, "dimensions"),
        ({"embed": ([10**9],)}, InvalidRequest, "input"),
        ({"embed": ("word " * 2000,)}, ContextLengthExceeded, "input"),
    ],
)
def test_what_cannot_be_embedded_is_refused(bench: Any, request_: Any, error: Any, param: str) -> None:
    with pytest.raises(error) as raised:
        bench.ask(**request_)
    assert raised.value.param == param


def test_an_operator_sees_what_happens(bench: Any) -> None:
    bench.ask(messages=CHAT, max_tokens=4, sampling=GREEDY, tenant="seen", priority="interactive")
    bench.ask(messages=CHAT, max_tokens=4, sampling=GREEDY, tenant="seen", priority="interactive")
    bench.do(lambda: None)  # an answer is told before its slot is free
    text = bench.runner.run(bench.generator.metrics())
    lines = [line for line in text.splitlines() if line[0] != "#"]
    value = {line.rpartition(" ")[0].removeprefix(PREFIX): float(line.rpartition(" ")[2]) for line in lines}
    mine = '{priority="interactive"}'
    assert value[f"queue_seconds_count{mine}"] == value[f"first_token_seconds_count{mine}"] >= 2
    assert value[f"inter_token_seconds_count{mine}"] >= 6
    assert 0 <= value[f"queue_seconds_sum{mine}"] < value[f"first_token_seconds_sum{mine}"]
    assert value["step_tokens_sum"] > value["batch_sequences_sum"]
    assert value[f"prompt_cached_share_count{mine}"] == value[f"queue_seconds_count{mine}"]
    assert value[f"prompt_cached_share_sum{mine}"] > 0.9  # the second one found all of its prompt but a token
    assert 0 < value[f"cached_prompt_tokens_total{mine}"] < value[f"prompt_tokens_total{mine}"]
    assert 0 < value[f"computed_tokens_total{mine}"] <= value["step_tokens_sum"]
    assert value["steps_total"] == value["kv_used_share_count"] == bench.scheduler.counts.steps
    assert 0 < value["kv_used_share_sum"] < value["steps_total"]
    assert value[f"preemptions_total{mine}"] == bench.scheduler.counts.classes[0].preemptions
    assert 0 < value["cache_used_bytes"] <= value["cache_limit_bytes"]
    assert value[f"running_sequences{mine}"] == value["waiting_sequences"] == value["kv_used_tokens"] == 0
