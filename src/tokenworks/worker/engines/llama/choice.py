"""One choice of an answer: what becomes of its logits. Sampling, text, stops, reasoning, calls and the finish."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tokenworks.core.events import ReasoningDelta, TextDelta
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.chat.reader import Delta, Reader
from tokenworks.worker.engines.llama.drafting.guesses import Guesses, Running
from tokenworks.worker.engines.llama.grammar import Constraint
from tokenworks.worker.engines.llama.kernel import Rows
from tokenworks.worker.engines.llama.sampling import Sampler, logprobs
from tokenworks.worker.engines.llama.scheduling.sequence import Outcome, Work, common
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence as Tokens
from tokenworks.worker.engines.llama.strict import Strict
from tokenworks.worker.engines.llama.text import Detokenizer
from tokenworks.worker.stops import StopFinder


@dataclass(slots=True)
class Parts:
    """What a choice is made of. `reader`: where the model may reason or call tools. `constraint`: what it may say; with
    `strict`, only while it writes the arguments of a call."""

    sampler: Sampler
    text: Detokenizer
    stops: StopFinder
    reader: Reader | None = None
    constraint: Constraint | None = None
    strict: Strict | None = None
    logprobs: int | None = None
    guesses: Guesses | None = None
    stops_after: int = 0
    """Tokens before which no stop string is looked for."""


class Choice:
    """`events` collects what happened since it was last emptied. A sequence's tokens beyond its prompt are its own."""

    def __init__(
        self, index: int, sequence: Tokens, parts: Parts, ends: Collection[int], pieces: Sequence[bytes]
    ) -> None:
        self.index = index
        self.sequence = sequence
        self.events: list[wire.Event] = []
        self.generated = 0
        self.finished = False
        self.failed = ""
        """Why it cannot go on."""
        self._parts = parts
        self._ends = ends
        self._pieces = pieces
        self._most = sequence.limit - sequence.prompt

    def begin(self, text: str) -> None:
        """Text that it starts with without having generated it: an echoed prompt, the opening of a forced call."""
        if self._parts.reader is not None:
            self._tell([], "", self._heard(text), [])
        elif text:
            self.events.append(wire.Tokens(text=text, index=self.index))

    def echo(self, text: str) -> None:
        self.events.append(wire.Tokens(text=text, index=self.index))

    def resume(self, tokens: Sequence[int]) -> None:
        """These were said before, by another engine or in another life: nothing of them is told again."""
        parts = self._parts
        for token in tokens:
            if parts.constraint is not None and parts.strict is None:
                parts.constraint.accept(token)
            elif parts.constraint is not None and not parts.constraint.accepts(token):
                parts.constraint = None  # whoever said it was not held to it
            self._release()
            self._heard(self._read(token))
        self.events.clear()

    def take(self, work: Work, rows: Rows) -> Outcome:
        """Logits after the sequence's last token and after each draft -> the tokens that come of them."""
        parts, accepted = self._parts, 0  # drafts that came true, so the next row is the one after them
        new: list[int] = []
        records: list[wire.Logprob] = []
        said = ""
        deltas: list[Delta] = []
        try:
            while True:
                token = self._sample(rows[accepted], records)
                chosen = [token, *self._accept(token)]
                text = ""
                for one in chosen:
                    text += self._read(one)
                    new.append(one)
                    if self.finished or self._is_full(len(new)):
                        break
                self._release()
                if parts.reader is None:
                    said += text
                else:
                    deltas += self._heard(text)
                if self.finished or self._is_full(len(new)) or self._is_complete():
                    break
                true = common(chosen, work.drafts[accepted:])
                accepted += true
                if true < len(chosen):
                    break
        except ValueError as error:
            self.failed, self.finished = str(error), True
        self.generated += len(new)
        full = not self.finished and self.generated >= self._most
        done = parts.constraint is not None and not self.finished and parts.constraint.done
        self._tell(new, said, deltas, records)
        if not self.finished and (full or self._is_complete()):
            self._finish("length" if full and not done else "stop")
        return Outcome(work, new, accepted, self.finished)

    @property
    def guessing(self) -> Running | None:
        """What may be guessed of it, to be checked with the next step; None: nothing."""
        guesses = self._parts.guesses
        return Running(self.sequence, guesses, self._most - self.generated - 1) if guesses is not None else None

    def _is_complete(self) -> bool:
        """Nothing more may come, of the form that it is held to or of its calls."""
        constraint, reader = self._parts.constraint, self._parts.reader
        return (constraint is not None and constraint.done) or (reader is not None and reader.done)

    def _heard(self, text: str) -> list[Delta]:
        """What the reader makes of it. The model is held to the arguments of the call that it has just begun, if they
        are strict."""
        parts = self._parts
        deltas = parts.reader.feed(text) if parts.reader is not None and text else []
        if parts.strict is not None and deltas:
            parts.constraint = parts.strict.begun(deltas, parts.stops.held) or parts.constraint
        return deltas

    def _release(self) -> None:
        """The arguments of a strict call are whole: what follows is free again."""
        parts = self._parts
        if parts.strict is not None and parts.constraint is not None and parts.constraint.done:
            parts.constraint = None

    def _is_full(self, new: int) -> bool:
        return self.generated + new >= self._most

    def _sample(self, row: "Rows", records: list[wire.Logprob]) -> int:
        parts = self._parts
        raw = row.copy() if parts.logprobs is not None else row
        token = parts.sampler.sample(row, parts.constraint.allowed() if parts.constraint is not None else None)
        if parts.logprobs is not None:
            logprob, best = logprobs(raw, token, parts.logprobs)
            top = tuple((self._word(one), value) for one, value in best)
            records.append(wire.Logprob(self._word(token), logprob, top))
        return token

    def _accept(self, token: int) -> Sequence[int]:
        """It is said now; gives the tokens that have to follow it."""
        parts = self._parts
        parts.sampler.accept(token)
        if parts.constraint is None:
            return ()
        parts.constraint.accept(token)
        if parts.constraint.done or parts.logprobs is not None:
            return ()  # whoever wants logprobs wants them of every token
        forced = parts.constraint.forced()
        for one in forced:
            parts.constraint.accept(one)
            parts.sampler.accept(one)
        return forced

    def _read(self, token: int) -> str:
        """Its text, as far as it may be shown; finishes at an end or a stop string."""
        parts = self._parts
        if token in self._ends:
            self._finish("stop", hold=True)
            return ""
        text = parts.text.feed(token)
        if parts.sampler.position <= parts.stops_after:
            return text
        shown, stop = parts.stops.feed(text)
        if stop is not None:
            self._finish("stop", stop, hold=True)
        return shown

    _held: wire.Finish | None = None

    def _finish(self, reason: str, stop: str | None = None, *, hold: bool = False) -> None:
        """`hold`: the finish is told after the tokens of this step."""
        self.finished = True
        finish = wire.Finish(reason, self.index, stop)
        if hold:
            self._held = finish
            return
        reader = self._parts.reader
        rest = self._parts.stops.flush()
        deltas: list[Delta] = [TextDelta(rest)] if rest and reader is None else []
        if reader is not None:
            deltas = [*(reader.feed(rest) if rest else []), *reader.close()]
            if reader.calls and reason == "stop" and stop is None:
                finish = wire.Finish("tool_calls", self.index)
        self.events += self._events([], deltas, [])
        self.events.append(finish)

    def _tell(self, new: list[int], said: str, deltas: list[Delta], records: list[wire.Logprob]) -> None:
        """`said` without a reader, `deltas` with one."""
        reader = self._parts.reader
        if reader is None:
            if new or said:
                logprobs = tuple(records) if self._parts.logprobs is not None else None
                self.events.append(wire.Tokens(tuple(new), said, self.index, logprobs))
        else:
            self.events += self._events(new, deltas, records)
        if self._held is not None:
            held, self._held = self._held, None
            self._finish(held.reason, held.stop_sequence)

    def _events(self, new: list[int], deltas: list[Delta], records: list[wire.Logprob]) -> list[wire.Event]:
        """The ids go with the first part, or alone."""
        logprobs = tuple(records) if records else None
        events: list[wire.Event] = []
        if new and not (deltas and isinstance(deltas[0], TextDelta | ReasoningDelta)):
            events.append(wire.Tokens(tuple(new), index=self.index, logprobs=logprobs))
            new, logprobs = [], None
        for delta in deltas:
            if isinstance(delta, TextDelta | ReasoningDelta):
                thought = isinstance(delta, ReasoningDelta)
                events.append(wire.Tokens(tuple(new), delta.text, self.index, logprobs, thought))
                new, logprobs = [], None
            else:
                events.append(wire.ToolCall(delta.arguments, delta.call, delta.id, delta.name, self.index))
        return events

    def _word(self, token: int) -> str:
        return self._pieces[token].decode("utf-8", "replace")
