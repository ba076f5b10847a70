"""The thread that owns the context: it takes requests in, steps while there is work, and hands events out.

Everything that touches kernel, scheduler or choices runs here, one thing after the other. The event loop talks to it by
operations in a queue, and hears of each step in one call.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from tokenworks.core.errors import LimitReached, TokenworksError, Unavailable
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines import machine
from tokenworks.worker.engines.llama.answer import Answer
from tokenworks.worker.engines.llama.choice import Choice
from tokenworks.worker.engines.llama.drafting.drafter import Drafter
from tokenworks.worker.engines.llama.drafting.guesses import Running
from tokenworks.worker.engines.llama.kernel import GivenUp, Kernel, KernelFailed
from tokenworks.worker.engines.llama.observed import Observed
from tokenworks.worker.engines.llama.pace import Pace
from tokenworks.worker.engines.llama.scheduling.interrupting import Interrupting
from tokenworks.worker.engines.llama.scheduling.scheduler import Refused, Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Outcome, Sequence, Work
from tokenworks.worker.engines.llama.spinning import Spinning

Operation = Callable[[], None]
Result = TypeVar("Result")
Handed = tuple[Answer, list[wire.Event], TokenworksError | None]
log = logging.getLogger(__name__)


class Runner:
    """`died` is called in the event loop with the reason when the thread cannot go on."""

    def __init__(
        self, kernel: Kernel, scheduler: Scheduler, pace: Pace, drafter: Drafter, died: Callable[[str], None]
    ) -> None:
        self.kernel = kernel
        self.scheduler = scheduler
        self.drafter = drafter
        self._pace = pace
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._operations: deque[Operation] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._owners: dict[Sequence, tuple[Answer, Choice]] = {}
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.observed = Observed(scheduler, kernel.slots * kernel.capacity)
        self.observed.guesses(drafter)
        self._last: dict[Sequence, float] = {}
        self._held: list[Handed] = []
        self._errands: set[asyncio.Future[Any]] = set()
        self._interrupting = Interrupting(scheduler, kernel.stop)
        self.steps = 0
        self.generated = 0

    def start(self) -> None:
        self._thread.start()

    async def stop(self) -> None:
        """After the step that runs."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def call(self, operation: Operation) -> None:
        """Runs it in the thread, between two steps."""
        with self._wake:
            self._operations.append(operation)
            self._wake.notify()

    async def run(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, done in the thread between two steps."""
        done: asyncio.Future[Result] = self._loop.create_future()

        def operation() -> None:
            if not done.cancelled():
                self._tell(_settle, done, work())

        self._errands.add(done)
        try:
            self.call(operation)
            return await done
        finally:
            self._errands.discard(done)

    def end(self, error: Exception) -> None:
        """The thread does nothing more for those who wait for something."""
        for done in self._errands:
            if not done.done():
                done.set_exception(error)

    def submit(self, answer: Answer) -> None:
        self.call(lambda: self._submit(answer))
        self._interrupting.came(answer.choices[0].sequence, time.monotonic())

    def cancel(self, answer: Answer) -> None:
        self.call(lambda: self._cancel(answer))

    def _run(self) -> None:
        spinning = Spinning(self.kernel.threads, machine.cores())
        try:
            while self._next():
                if self.scheduler.has_work():
                    spinning.add(self._step())
        except KernelFailed as error:
            self._deliver_held()
            self._tell(self._died, str(error))
        except Exception as error:  # whatever it is, this engine is at its end and has to say so
            log.exception("the engine's thread ends")
            self._deliver_held()
            self._tell(self._died, f"{type(error).__name__}: {error}")
        finally:
            spinning.close()

    def _next(self) -> bool:
        """Does what was asked for; waits when there is nothing to do. False at the end."""
        if self._operations or not self.scheduler.has_work():
            self._deliver_held()
        with self._wake:
            while not (self._operations or self._closing or self.scheduler.has_work()):
                self._wake.wait()
            if self._closing:
                return False
            operations = list(self._operations)
            self._operations.clear()
        for operation in operations:
            operation()
        return True

    def _submit(self, answer: Answer) -> None:
        error: TokenworksError | None = None
        now = time.monotonic()
        try:
            for choice in answer.choices:
                self.scheduler.submit(choice.sequence, now)
                self._owners[choice.sequence] = (answer, choice)
        except Refused as refused:
            self._cancel(answer)
            self.observed.refused(answer.choices[0].sequence.priority)
            wait = max(1, round(refused.retry_after))
            if refused.own:
                error = LimitReached(
                    f"Too many of your requests wait for this model; try again in {wait} s.", retry_after=wait
                )
            else:
                error = Unavailable(f"Too many requests wait for this model; try again in {wait} s.", retry_after=wait)
        self._tell(answer.accept, error)

    def _cancel(self, answer: Answer) -> None:
        for choice in answer.choices:
            self._last.pop(choice.sequence, None)
            if self._owners.pop(choice.sequence, None) is not None:
                self.scheduler.cancel(choice.sequence)

    def _step(self) -> float:
        """Gives the seconds that its forward passes took."""
        begun = time.monotonic()
        scheduler = self.scheduler
        scheduler.budget = self._pace.budget
        self.drafter.propose(self._guessing(scheduler.running))
        works = scheduler.plan(begun)
        self._deliver_held()
        outcomes, given_up = self._forward(works, begun)
        seconds = time.monotonic() - begun
        self._interrupting.end(seconds, given_up)
        guessing = [(outcome, self._owners[outcome.work.sequence][1].guessing) for outcome in outcomes]
        scheduler.commit(outcomes, seconds, lambda: self._hand_out(outcomes, begun + seconds))
        for outcome, guesses in guessing:
            if outcome.tokens and guesses is not None:
                self.drafter.learn(outcome, guesses)
        self.steps += 1
        tokens = sum(outcome.work.end - outcome.work.begin for outcome in outcomes)
        if given_up:
            self.observed.given_up()
        else:
            self._pace.add(tokens, seconds)
        self.observed.step(len(outcomes), tokens, seconds)
        return seconds

    def _guessing(self, running: list[Sequence]) -> list[Running]:
        found = [self._owners[sequence][1].guessing for sequence in running]
        return [one for one in found if one is not None]

    def _forward(self, works: list[Work], begun: float) -> tuple[list[Outcome], bool]:
        """What came of it until it was given up, and whether it was."""
        outcomes: list[Outcome] = []
        self._interrupting.begin(works, begun)
        try:
            for group in self.kernel.passes(works) if works else ():
                outcomes += self._compute(group)
        except GivenUp:
            return outcomes, True
        return outcomes, False

    def _compute(self, works: list[Work]) -> list[Outcome]:
        begun = time.monotonic()
        outcomes = []
        for work, rows in zip(works, self.kernel.compute(works), strict=True):
            if rows is None:
                outcomes.append(Outcome(work, []))
                continue
            outcome = self._owners[work.sequence][1].take(work, rows)
            if outcome.accepted < len(work.drafts) and not outcome.ended:
                self.kernel.cut(work.sequence.slot, work.end + outcome.accepted)
            outcomes.append(outcome)
        self.drafter.computed(outcomes, time.monotonic() - begun)
        return outcomes

    def _hand_out(self, outcomes: list[Outcome], now: float) -> None:
        """One call into the event loop for all that this step brought. Where nobody's answer is whole it is held until
        the next forward pass begins: the loop's thread would wait for the interpreter until then, and be waited for."""
        handed = self._held
        for outcome in outcomes:
            sequence = outcome.work.sequence
            if not outcome.tokens and not outcome.ended:
                continue
            answer, choice = self._owners[sequence]
            self.generated += len(outcome.tokens)
            self.observed.tokens(sequence, len(outcome.tokens), now, self._last.get(sequence, 0.0))
            self._last[sequence] = now
            events = list(choice.events)
            choice.events.clear()
            error = None
            if outcome.ended:
                del self._owners[sequence], self._last[sequence]
                if choice.failed:
                    error = TokenworksError(f"The answer cannot go on: {choice.failed}", code="grammar_error")
            handed.append((answer, events, error))
        for sequence in self.scheduler.overdue:
            answer, _ = self._owners.pop(sequence)
            self._cancel(answer)
            handed.append((answer, [], Unavailable("The request's deadline has passed.", code=wire.OVERDUE)))
        whole = bool(self.scheduler.overdue) or any(outcome.ended for outcome in outcomes)
        self.scheduler.overdue.clear()
        if whole:
            self._deliver_held()

    def _deliver_held(self) -> None:
        if self._held:
            handed, self._held = self._held, []
            self._tell(_deliver, handed)

    def _tell(self, what: Callable[..., object], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *arguments)


def _settle(done: "asyncio.Future[Result]", result: Result) -> None:
    if not done.done():
        done.set_result(result)


def _deliver(handed: list[Handed]) -> None:
    for answer, events, error in handed:
        answer.deliver(events, error)
