"""Which guesses are checked in the next step: those that make more tokens per second, by what steps cost here and by
how often guesses came true of late. It belongs to the engine's thread."""

from collections.abc import Sequence

from tokenworks.worker.engines.llama.drafting.cost import Cost, passes
from tokenworks.worker.engines.llama.drafting.guesses import KINDS, MODEL, Running
from tokenworks.worker.engines.llama.drafting.lengths import LONGEST, choose
from tokenworks.worker.engines.llama.drafting.model import Draft, DraftModel
from tokenworks.worker.engines.llama.drafting.proof import Proof
from tokenworks.worker.engines.llama.drafting.shared import Tables
from tokenworks.worker.engines.llama.scheduling.sequence import Outcome
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence as Tokens

BARE = 32
"""One step in so many is without what was looked up: what it would take else has to be known."""

FEW = 4
PAUSE = 3
"""Steps of more than `FEW` sequences for which nothing is chosen after nothing was worth it: choosing costs, too."""


class Drafter:
    """`memory`: bytes for what requests of a key share; see shared.py. `model`: a draft model, if there is one."""

    def __init__(self, memory: int, model: DraftModel | None = None) -> None:
        self.tables = Tables(memory)
        self.model = model
        self.cost = Cost()
        self.proof = Proof()
        self._usual = 0.0
        self._pause = 0
        self.drafted = dict.fromkeys(KINDS, 0)
        """Tokens since the start, by kind ..."""
        self.accepted = dict.fromkeys(KINDS, 0)
        """... and those of them that came true."""
        if model is not None:
            model.begin(self.cost)

    def propose(self, running: Sequence[Running]) -> None:
        """Before a step: gives each sequence what is to be checked of its guess, or nothing."""
        self._usual = 0.0
        for one in running:
            one.sequence.drafts = []
        if not running or not all(_generates(one.sequence) for one in running):
            return  # prompts fill the step
        if self._pause and len(running) > FEW:
            self._pause -= 1
            return
        tables = self.tables
        reach = [one.guesses.reach(tables.of(one.sequence.key)) for one in running]
        if running[0].guesses.steps % BARE == BARE - 1 or self.proof.rests(len(running)):
            reach = [[] for _ in running]
        lengths, rate = choose(reach, lambda more: self._seconds(running, more))
        self._pause = PAUSE if self.model is None and not any(lengths) else 0
        if any(lengths):
            self._usual = len(running) / self._seconds(running, [0] * len(running))
        for one, length in zip(running, lengths, strict=True):
            one.sequence.drafts = one.guesses.row[:length]
        if self.model is not None and rate:
            self._ask_model(self.model, running, lengths, rate)

    def computed(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """A forward pass that brought this, with the sampling after it, took so long."""
        works = [outcome.work for outcome in outcomes]
        if self._usual and any(work.drafts for work in works):
            tokens = sum(len(outcome.tokens) for outcome in outcomes)
            self.proof.add(len(works), tokens / seconds / self._usual)
        if all(work.samples and _generates(work.sequence) for work in works):
            self.cost.add(passes([(w.sequence.key[1], w.sequence.slot, w.size) for w in works]), seconds)

    def learn(self, outcome: Outcome, one: Running) -> None:
        """After a step that brought tokens: judges what was guessed, and guesses what is next."""
        drafts, guesses, sequence = outcome.work.drafts, one.guesses, one.sequence
        if drafts:
            self.drafted[guesses.kind] += len(drafts)
            self.accepted[guesses.kind] += outcome.accepted
        guesses.judge(outcome.tokens, self.tables.of(sequence.key))
        guesses.learn(sequence, self.tables)
        if not outcome.ended:
            guesses.look_up(sequence, self.tables, one.room)

    def _seconds(self, running: Sequence[Running], more: Sequence[int]) -> float:
        rows = [
            (one.sequence.key[1], one.sequence.slot, one.sequence.pending + extra)
            for one, extra in zip(running, more, strict=True)
        ]
        if any(rows[at][0] != rows[at + 1][0] for at in range(len(rows) - 1)):
            rows.sort()  # an adapter is a pass of its own
        return self.cost.of(passes(rows))

    def _ask_model(self, model: DraftModel, running: Sequence[Running], looked_up: Sequence[int], rate: float) -> None:
        """For those without a guess that is worth it."""
        model.keep({one.sequence for one in running})
        asked = [one for one, length in zip(running, looked_up, strict=True) if not length]
        wanted = [Draft(one.sequence, one.guesses.sampler, min(one.room, LONGEST)) for one in asked]
        drafts = [draft for draft in wanted if draft.most > 0 and model.can(draft)]
        if not drafts:
            return
        places = {one.sequence: at for at, one in enumerate(running)}
        reach = {one.sequence: one.guesses.reach_of(MODEL, LONGEST, self.tables.of(one.sequence.key)) for one in asked}
        expected = rate * self._seconds(running, looked_up)

        def rate_of(length: int) -> float:
            """Tokens per second when the model guesses so many."""
            lengths = list(looked_up)
            tokens = expected
            for draft in drafts:
                lengths[places[draft.sequence]] = count = min(length, draft.most)
                tokens += sum(reach[draft.sequence][:count])
            return tokens / (self._seconds(running, lengths) + model.seconds(drafts, length))

        length, chosen = model.plan(rate, rate_of, drafts)
        if not length:
            return
        for draft, row in zip(chosen, model.draft(chosen, length), strict=True):
            if row:
                one = running[places[draft.sequence]]
                self._usual = 0.0  # the time that the model took is not in the step's
                one.guesses.kind, one.guesses.row = MODEL, row
                draft.sequence.drafts = row


def _generates(sequence: Tokens) -> bool:
    """Whether it is past its prompt: a step gives it a token."""
    return len(sequence.tokens) > sequence.prompt and sequence.pending <= LONGEST
