"""A forward pass is given up while it is young, within what may be lost, and leaves nothing behind."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama.scheduling.interrupting import SAVED, SHARE, YOUNG, Interrupting
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence


class Engine:
    """A crowd of eight whose step takes a second, at the time `now`."""

    def __init__(self, simulation: Callable[..., Any]) -> None:
        self.sim = simulation(slots=9, capacity=2048, budget=32, memory=0)
        for n in range(8):
            self.sim.submit([n], 2000, tenant="a")
        self.sim.speed = 8.0
        for _ in range(200):
            self.sim.step()
        self.stops: list[bool] = []
        self.interrupting = Interrupting(self.sim.scheduler, self.stops.append)
        self.now = 1000.0

    def compute(self, seconds: float, *, given_up: bool = False) -> None:
        self.interrupting.begin(self.sim.scheduler.plan(self.now), self.now)
        self.now += seconds
        self.interrupting.end(seconds, given_up)

    def stopped(self, after: float, newcomers: int = 1) -> bool:
        """Whether a step that has run so long is stopped for them."""
        self.stops.clear()
        self.interrupting.begin(self.sim.scheduler.plan(self.now), self.now)
        for _ in range(newcomers):
            self.interrupting.came(Sequence([1, 2, 3], 10, "b"), self.now + after)
        given_up = True in self.stops
        self.now += after if given_up else 1.0
        self.interrupting.end(after if given_up else 1.0, given_up)
        assert self.stops == [True, False] if given_up else [False]
        return given_up


@pytest.fixture
def engine(simulation: Callable[..., Any]) -> Engine:
    return Engine(simulation)


def test_it_is_stopped_once_while_it_is_young(engine: Engine) -> None:
    engine.sim.speed = 80.0
    for _ in range(200):
        engine.sim.step()  # a tenth of a second each
    engine.compute(2 * SAVED / SHARE)
    assert not engine.stopped(0.1 * (YOUNG + 0.1))
    assert engine.stopped(0.1 * (YOUNG - 0.1), newcomers=3)


def test_what_may_be_lost_is_bounded(engine: Engine) -> None:
    assert not engine.stopped(0.001)
    engine.compute(4.0)
    assert not engine.stopped(4.0 * SHARE + 1.1 * SHARE)
    assert engine.stopped(4.0 * SHARE)
    assert not engine.stopped(4.0 * SHARE)
    engine.compute(1e6)
    lost = 0.0
    while engine.stopped(0.05):
        lost += 0.05
    assert SAVED - 0.05 <= lost <= SAVED


def test_nobody_comes_between_two_steps(engine: Engine) -> None:
    engine.compute(1e6)
    engine.interrupting.came(Sequence([1, 2, 3], 10, "b"), engine.now)
    assert True not in engine.stops


def test_an_answer_is_the_same_however_often_it_is_stopped(
    bench: Any, text_of: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.generator.intake, "_guesses", False)  # a guess is another shape of the same step
    request = {
        "prompts": ("The sea was calm and the people of the town went down to the harbour, where",),
        "max_tokens": 24,
        "sampling": wire.Sampling(temperature=0.0, ignore_eos=True),
    }
    undisturbed = bench.ask(**request, tenant="one")
    kernel = bench.generator.runner.kernel

    async def stopped_again_and_again() -> list[wire.Event]:
        answer = asyncio.create_task(bench.answer(**request, tenant="two"))
        for _ in range(30):
            kernel.stop(True)
            await asyncio.sleep(0.003)
        return await answer

    disturbed = bench.runner.run(stopped_again_and_again())
    assert text_of(disturbed) == text_of(undisturbed)
    metrics = bench.runner.run(bench.generator.metrics())
    assert "tokenworks_engine_given_up_steps_total 0.0" not in metrics
    assert not caplog.records
    bench.assert_empty()
