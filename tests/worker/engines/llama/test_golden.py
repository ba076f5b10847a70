"""Greedy answers are those of Hugging Face transformers in float32 (golden/make.py), whatever else the engine does.

llama.cpp computes with 8-bit activations, so logits differ a little: the two may part only where the reference itself
was undecided, by less than `TOLERANCE`.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tokenworks.protocols.worker import types as wire

CASES = json.loads(Path(__file__).with_name("golden").joinpath("golden.json").read_text())
LENGTH = 16
TOLERANCE = 0.4
"""Logits; 21 of the 50 answers part from the reference within 16 tokens, all where it was ahead by less than 0.3."""
GREEDY = wire.Sampling(temperature=0.0, ignore_eos=True)


def request(case: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"prompts": (case["prompt"],), "max_tokens": LENGTH, "sampling": GREEDY} | more


def parting(case: dict[str, Any], got: list[int], begin: int = 0) -> int:
    """Where the first token comes that is not the reference's, which must have been undecided; LENGTH: nowhere."""
    for at, (expected, token) in enumerate(zip(case["tokens"][begin:LENGTH], got, strict=True), begin):
        if token != expected:
            margin = case["margins"][at]
            assert margin <= TOLERANCE, f"token {at}: {token} instead of {expected}, which was ahead by {margin}"
            return at
    return LENGTH


def agree(cases: list[dict[str, Any]], answers: list[list[int]]) -> None:
    same = sum(parting(case, got) == LENGTH for case, got in zip(cases, answers, strict=True))
    assert same >= len(cases) / 2, f"{same} of {len(cases)} are the same to the last token"


@pytest.fixture(scope="module")
def alone(bench: Any, ids_of: Any) -> list[list[int]]:
    """Each prompt by itself, nothing cached."""
    return [ids_of(bench.ask(**request(case, tenant=f"alone {n}"))) for n, case in enumerate(CASES)]


def test_alone(bench: Any, ids_of: Any, alone: list[list[int]]) -> None:
    """Wherever they part, it goes on from the reference's tokens: every token of each answer is looked at."""
    agree(CASES, alone)
    for n, (case, got) in enumerate(zip(CASES, alone, strict=True)):
        at = parting(case, got)
        while at < LENGTH - 1:
            given = tuple(case["tokens"][: at + 1])
            rest = ids_of(bench.ask(**request(case, tenant=f"alone {n}", resume=(given,))))
            at = parting(case, rest, at + 1)


def test_in_a_busy_batch(bench: Any, ids_of: Any) -> None:
    """All fifty together on four slots, of several tenants."""
    answers = bench.at_once(*[request(case, tenant=f"busy {n % 3}") for n, case in enumerate(CASES)])
    agree(CASES, [ids_of(got) for got in answers])


def test_with_a_shared_prefix(bench: Any, ids_of: Any) -> None:
    """Again, when all but the last token of each prompt is in the cache."""
    before = bench.scheduler.counts.cached
    answers = bench.at_once(*[request(case, tenant=f"busy {n % 3}") for n, case in enumerate(CASES)])
    assert bench.scheduler.counts.cached - before == sum(len(case["prompt"]) - 1 for case in CASES)
    agree(CASES, [ids_of(got) for got in answers])


def test_after_preemption(bench: Any, ids_of: Any) -> None:
    """Each sequence loses its slot several times and resumes from what was kept."""
    runner, scheduler = bench.generator.runner, bench.scheduler
    plan, before = scheduler.plan, scheduler.counts.preemptions

    def plan_with_preemption(now: float) -> Any:
        if scheduler.counts.steps % 5 == 0 and len(scheduler.running) > 1:
            scheduler.preempt(scheduler.running[0])
        return plan(now)

    cases = CASES[:20]
    scheduler.plan = plan_with_preemption
    try:
        answers = bench.at_once(*[request(case, tenant="preempted") for case in cases])
    finally:
        del scheduler.plan
    assert runner.scheduler.counts.preemptions > before + 10
    agree(cases, [ids_of(got) for got in answers])


def test_after_resume(bench: Any, ids_of: Any, alone: list[list[int]]) -> None:
    """From the prompt and half of the answer, the other half follows."""
    half = LENGTH // 2
    for case, whole in list(zip(CASES, alone, strict=True))[:10]:
        resumed = request(case, resume=(tuple(whole[:half]),), tenant="resumed")
        assert ids_of(bench.ask(**resumed)) == whole[half:]
