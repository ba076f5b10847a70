"""Answers with guesses of every kind are those without, token for token: greedy, seeded, penalized, held to a form, in
a busy batch, after preemption, with n > 1."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama.drafting.cost import Cost
from tokenworks.worker.engines.llama.drafting.proof import Proof

GREEDY = wire.Sampling(temperature=0.0, ignore_eos=True)
COUNTED = "one two three four five six seven eight nine ten, "
REPEATED = COUNTED * 4
SCHEMA = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 3, "maxItems": 3}},
    "required": ["names"],
    "additionalProperties": False,
}


class Constant(Cost):
    """A machine on which every step takes as long, whatever is computed in it."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.now = time.monotonic
        self._seconds = seconds

    def add(self, passes: Sequence[int], seconds: float) -> None: ...

    def of(self, passes: Any) -> float:
        return self._seconds


CHAT = (wire.Message("user", "red or green?"),)
TOOL = wire.Tool("name_it", "The colours", SCHEMA)


class Unasked(Proof):
    """Time is not looked at."""

    def add(self, sequences: int, gain: float) -> None: ...


def requests(tenant: str) -> list[dict[str, Any]]:
    story = "Here is a story about rain:\n"
    found = [
        {"prompts": (REPEATED,), "sampling": GREEDY},
        {"prompts": (REPEATED,), "sampling": wire.Sampling(temperature=1.0, top_k=3, seed=7, ignore_eos=True)},
        {"prompts": (REPEATED,), "sampling": wire.Sampling(temperature=0.0, repetition_penalty=1.1)},
        {"prompts": (story,), "sampling": wire.Sampling(temperature=0.9, seed=3, frequency_penalty=0.4), "n": 2},
        {"prompts": (story,), "sampling": GREEDY, "logprobs": 2},
        {"prompts": (REPEATED,), "sampling": wire.Sampling(temperature=0.0, stop=("five six",))},
        {"prompts": (f"{REPEATED}\nAs JSON: ",), "sampling": wire.Sampling(temperature=0.0), "json_schema": SCHEMA},
        {"prompts": ("List: red green red green",), "sampling": GREEDY, "resume": ((30, 31),)},
        {"messages": CHAT, "sampling": wire.Sampling(temperature=0.0), "tools": (TOOL,), "tool_choice": "required"},
    ]
    return [{"max_tokens": 16, "tenant": tenant} | request for request in found]


Said = list[tuple[list[list[int]], list[str], str, list[wire.Event]]]


@pytest.fixture(scope="module")
def said(ids_of: Any, text_of: Any) -> Callable[[list[list[wire.Event]]], Said]:
    """Tokens, texts, arguments of calls, and finishes."""

    def look(answers: list[list[wire.Event]]) -> Said:
        return [
            (
                [ids_of(events, index) for index in range(2)],
                [text_of(events, index) for index in range(2)],
                "".join(event.arguments for event in events if isinstance(event, wire.ToolCall)),
                sorted((e for e in events if isinstance(e, wire.Finish)), key=lambda finish: finish.index),
            )
            for events in answers
        ]

    return look


@pytest.fixture(scope="module")
def plain(bench: Any, said: Any) -> Said:
    """Alone, nothing guessed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.generator.intake, "_guesses", False)
        found: Said = said([bench.ask(**request) for request in requests("plain")])
    return found


@pytest.fixture(scope="module")
def looking(bench: Any) -> Iterator[Any]:
    """The engine on a machine where a guess costs nothing."""
    drafter = bench.generator.runner.drafter
    before, drafter.cost, drafter.proof = drafter.cost, Constant(1.0), Unasked()
    yield bench
    drafter.cost, drafter.proof = before, Proof()


@pytest.fixture(scope="module")
def with_model(other_bench: Any, smollm2: Path) -> Iterator[Any]:
    """One whose draft model has the same weights, and costs nothing."""
    made = other_bench(lookup=False, draft=str(smollm2))
    drafter = made.generator.runner.drafter
    drafter.cost, drafter.model.cost = Constant(1.0), Constant(0.0)
    yield made
    made.assert_empty()
    made.close()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_repeats_itself_takes_fewer_steps(
    looking: Any, ids_of: Any, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = wire.Sampling(temperature=temperature, top_k=2 if temperature else None, seed=3, ignore_eos=True)
    asked: dict[str, Any] = {"prompts": (COUNTED * 6,), "max_tokens": 40, "sampling": sampling}
    before = looking.scheduler.counts.steps
    guessed = ids_of(looking.ask(**asked, tenant=f"repeats {temperature}"))
    steps = looking.scheduler.counts.steps - before
    monkeypatch.setattr(looking.generator.intake, "_guesses", False)
    before = looking.scheduler.counts.steps
    assert ids_of(looking.ask(**asked, tenant="repeats")) == guessed
    assert steps < (looking.scheduler.counts.steps - before) * 0.7


def test_looked_up(looking: Any, plain: Said, said: Any) -> None:
    """The second time everything was said before by another request of the tenant."""
    drafter = looking.generator.runner.drafter
    before = dict(drafter.accepted)
    for _ in range(2):
        assert said([looking.ask(**request) for request in requests("looked")]) == plain
    assert drafter.accepted["own"] > before["own"] + 4
    assert drafter.accepted["shared"] > before["shared"] + 20
    assert drafter.accepted["model"] == before["model"] == drafter.drafted["model"]


def test_in_a_busy_batch(looking: Any, plain: Said, said: Any) -> None:
    drafter = looking.generator.runner.drafter
    before = sum(drafter.accepted.values())
    assert said(looking.at_once(*requests("busy"))) == plain
    assert sum(drafter.accepted.values()) > before


def test_nothing_is_guessed_from_another_tenant(looking: Any) -> None:
    """What one tenant was told is unknown to the next, who asks the same: guesses of both begin from nothing."""
    drafter = looking.generator.runner.drafter
    request = {"prompts": ("Two words about the moon:",), "max_tokens": 30, "sampling": GREEDY}

    def counts() -> tuple[int, int]:
        return drafter.drafted["shared"], looking.scheduler.counts.steps

    def guessed(tenant: str) -> tuple[int, int]:
        before = looking.do(counts)
        looking.ask(**request, tenant=tenant)
        after = looking.do(counts)  # in the engine's thread: an answer is told before the step has ended
        return after[0] - before[0], after[1] - before[1]

    first, again, other = guessed("moon"), guessed("moon"), guessed("moon 2")
    assert again[0] > first[0]
    assert again[1] < first[1] * 0.7, "fewer steps"
    assert other == first, "as many guesses and steps as for whoever asked first"


def test_with_a_draft_model(with_model: Any, plain: Said, said: Any) -> None:
    """Drawn with the same chances, what the same weights guess comes true: also seeded at a temperature."""
    drafter = with_model.generator.runner.drafter
    assert said([with_model.ask(**request) for request in requests("t")[:5]]) == plain[:5]
    assert drafter.accepted["model"] > 60
    assert drafter.accepted["model"] >= 0.9 * drafter.drafted["model"]
    assert drafter.drafted["own"] == drafter.drafted["shared"] == 0


def test_with_a_draft_model_in_a_busy_batch_with_preemption(with_model: Any, plain: Said, said: Any) -> None:
    scheduler, drafter = with_model.scheduler, with_model.generator.runner.drafter
    plan, accepted, preemptions = scheduler.plan, drafter.accepted["model"], scheduler.counts.preemptions

    def plan_with_preemption(now: float) -> Any:
        if scheduler.counts.steps % 3 == 0 and len(scheduler.running) > 1:
            scheduler.preempt(scheduler.running[0])
        return plan(now)

    scheduler.plan = plan_with_preemption
    try:
        assert said(with_model.at_once(*requests("p"))) == plain
    finally:
        del scheduler.plan
    assert scheduler.counts.preemptions > preemptions + 5
    assert drafter.accepted["model"] > accepted + 30


def test_with_a_draft_model_that_errs(with_model: Any, plain: Said, said: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third of its tokens is another one than the model's."""
    drafter = with_model.generator.runner.drafter
    right, count = drafter.model._fit, itertools.count()
    monkeypatch.setattr(drafter.model, "_fit", lambda row: right(row) if next(count) % 3 else np.roll(right(row), 1))
    before = drafter.accepted["model"], drafter.drafted["model"]
    assert said(with_model.at_once(*requests("t")[:5])) == plain[:5]
    accepted, drafted = drafter.accepted["model"] - before[0], drafter.drafted["model"] - before[1]
    assert 0 < accepted < 0.7 * drafted


def test_an_operator_sees_guesses_by_kind(with_model: Any) -> None:
    with_model.ask(prompts=(REPEATED,), max_tokens=12, sampling=GREEDY)
    text = with_model.runner.run(with_model.generator.metrics())
    value = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    drafted, accepted = (
        value[f'tokenworks_engine_{name}_tokens_total{{kind="model"}}'] for name in ("drafted", "accepted")
    )
    assert drafted >= accepted > 0
    assert value['tokenworks_engine_drafted_tokens_total{kind="own"}'] == 0
    assert value["tokenworks_engine_lookup_used_bytes"] >= 0
