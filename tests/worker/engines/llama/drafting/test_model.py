"""A draft model: which may be one, what it holds, when it is left alone."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tokenworks.client import Address
from tokenworks.worker.app import Worker
from tokenworks.worker.engines.base import OptionError, Setup
from tokenworks.worker.engines.gguf import read_metadata
from tokenworks.worker.engines.llama.drafting import loading
from tokenworks.worker.engines.llama.drafting.cost import Cost
from tokenworks.worker.engines.llama.drafting.model import AHEAD, CHUNK, REST, TRIAL, TRIAL_LENGTH, Draft, DraftModel
from tokenworks.worker.engines.llama.engine import Llama
from tokenworks.worker.engines.llama.model import LoadFailed
from tokenworks.worker.engines.llama.options import Options, context
from tokenworks.worker.engines.llama.sampling import Sampler, Settings
from tokenworks.worker.engines.llama.scheduling.sequence import Sequence, Work
from tokenworks.worker.settings import Settings as WorkerSettings
from tokenworks.worker.settings import read

WIDTH = 50


class Counting:
    """A network that says: after token n comes n + 1. It checks that a slot holds what it is asked to go on from."""

    slots, capacity, batch = 2, 1000, CHUNK

    def __init__(self) -> None:
        self.held: list[list[int]] = [[] for _ in range(self.slots)]
        self.computed = 0

    def compute(self, works: list[Work]) -> list[Any]:
        rows: list[Any] = []
        for work in works:
            held, tokens = self.held[work.sequence.slot], work.sequence.tokens
            assert held == tokens[: work.begin]
            held += tokens[work.begin : work.end]
            self.computed += work.end - work.begin
            row = np.zeros((1, WIDTH), np.float32)
            row[0, (tokens[work.end - 1] + 1) % WIDTH] = 9.0
            rows.append(row if work.samples else None)
        assert sum(work.size for work in works) <= self.batch
        return rows

    def cut(self, slot: int, length: int) -> None:
        del self.held[slot][length:]

    def clear(self, slot: int) -> None:
        self.held[slot].clear()

    def close(self) -> None: ...


def greedy(sequence: Sequence, most: int = 16) -> Draft:
    return Draft(sequence, Sampler(Settings(temperature=0.0)), most)


@pytest.fixture
def network() -> Counting:
    return Counting()


@pytest.fixture
def model(network: Counting) -> DraftModel:
    return DraftModel(network, vocabulary=WIDTH, width=WIDTH, share=0.1)


def test_it_goes_on_from_what_came_true(model: DraftModel, network: Counting) -> None:
    sequence = Sequence([1, 2, 3], 100)
    assert model.draft([greedy(sequence)], 4) == [[4, 5, 6, 7]]
    sequence.tokens += [4, 5, 30]
    before = network.computed
    assert model.draft([greedy(sequence)], 2) == [[31, 32]]
    assert network.computed == before + 2, "the last token, and one guess: the others were there"
    sequence.tokens += [31, 32, 33]
    assert model.behind(sequence) == 2
    assert model.draft([greedy(sequence, 1)], 4) == [[34]]


def test_long_prompts_are_read_in_chunks_between_steps(model: DraftModel, network: Counting) -> None:
    long, short = Sequence([n % WIDTH for n in range(3 * CHUNK)], 900), Sequence([1, 2], 100)
    steps = 0
    while True:
        before = network.computed
        rows = model.draft([greedy(long), greedy(short)], 2)
        assert len(rows[1]) == 2, "who is not behind does not wait"
        assert network.computed - before <= CHUNK + 2 * AHEAD
        steps += 1
        if rows[0]:
            break
    assert rows[0] == [(long.tokens[-1] + 1) % WIDTH, (long.tokens[-1] + 2) % WIDTH]
    assert 3 <= steps <= 4


def test_slots_of_those_who_are_gone_are_free(model: DraftModel, network: Counting) -> None:
    one, two, three = (Sequence([n, n + 1], 100) for n in (1, 10, 20))
    assert model.draft([greedy(one), greedy(two), greedy(three)], 1) == [[3], [12], []], "there are two slots"
    model.keep({two, three})
    assert model.draft([greedy(two), greedy(three)], 1) == [[12], [22]]
    model.keep(set())
    assert network.held == [[], []]


def test_a_vocabulary_that_is_padded_otherwise(network: Counting) -> None:
    small = DraftModel(network, vocabulary=WIDTH, width=WIDTH + 8, share=0.1)
    assert small.can(greedy(Sequence([1, WIDTH - 1], 100)))
    assert not small.can(greedy(Sequence([1, WIDTH], 100))), "a token that it does not know"
    assert small.draft([greedy(Sequence([1, 2], 100))], 2) == [[3, 4]]
    big = DraftModel(Counting(), vocabulary=WIDTH, width=10, share=0.1)
    assert big.draft([greedy(Sequence([8, 9], 100))], 1)[0][0] < 10


def test_what_gains_nothing_is_left_alone_and_tried_again_ever_more_seldom(model: DraftModel) -> None:
    drafts = [greedy(Sequence([1, 2, 3], 100))]
    model.draft(drafts, 1)
    lengths = [model.plan(10.0, lambda _: 9.0, drafts)[0] for _ in range(3 * REST + 2 * TRIAL + 10)]
    tried = [at for at, length in enumerate(lengths) if length]
    assert {lengths[at] for at in tried} == {TRIAL_LENGTH}
    assert len(tried) == 2 * TRIAL
    assert tried[TRIAL] - tried[TRIAL - 1] > 1.5 * REST
    assert model.plan(10.0, lambda length: 10.0 + length if length <= 4 else 0.0, drafts) == (4, drafts)


def test_a_prompt_is_read_only_for_an_answer_that_is_long_enough(model: DraftModel) -> None:
    cost = Cost()
    cost.add([1], 1.0)
    cost.add([CHUNK], 10.0)
    model.begin(cost)
    model.cost = cost
    short, long = Sequence([1] * 500, 504, expected=200), Sequence([1] * 500, 900, expected=200)
    assert model.plan(1.0, lambda _: 3.0, [greedy(short)]) == (0, ())
    assert model.plan(1.0, lambda _: 3.0, [greedy(long)])[0] > 0


def failure(bench: Any, draft: Path) -> str:
    runner = bench.generator.runner
    with pytest.raises(LoadFailed) as failed:
        loading.load(draft, bench.generator.intake.model, runner.kernel, 0)
    return str(failed.value)


def test_another_vocabulary_is_refused_by_what_differs(bench: Any, copy_of: Any) -> None:
    said = failure(bench, copy_of("words", 1, words={1000: "zzzz"}))
    assert "--option draft" in said
    assert "token 1000 is 'zzzz', not " in said
    assert "smaller model of the same family" in said


class Words(NamedTuple):
    tokens: int
    pieces: list[bytes]
    ends: frozenset[int] = frozenset({2})


def test_vocabularies_of_one_family_may_be_padded() -> None:
    target: Any = Words(300, [b"%d" % token for token in range(300)])
    assert loading.differs(target, target) is None
    assert loading.differs(target._replace(tokens=200, pieces=target.pieces[:200]), target) is None
    assert loading.differs(target._replace(tokens=100), target) == "100 tokens, not 300"
    assert loading.differs(target._replace(ends=frozenset()), target) == "token 2 ('2') does not end an answer there"


def test_the_slots_of_a_draft_model_count(smollm2: Path) -> None:
    metadata = read_metadata(smollm2)
    memory = metadata.cache_bytes_per_token() * 16 * 8 * 2048
    alone, both = (context(Options(), metadata, None, memory, draft) for draft in (None, metadata))
    assert (alone, both) == (2048, 1024)


def test_it_is_named_as_weights_are(tmp_path: Path) -> None:
    def settings(draft: str) -> WorkerSettings:
        given = ["--model", "smollm2-135m", "--engine", "llama", "--listen", f"unix:{tmp_path}/w.sock"]
        return read([*given, "--cache-dir", str(tmp_path), "--option", f"draft={draft}"])

    with pytest.raises(OptionError, match=r"--option draft: .*smolm2-135m"):
        Worker(settings("smolm2-135m"))
    Worker(settings("smollm2-135m"))


def test_its_file_is_handed_to_the_engine(smollm2: Path) -> None:
    engine = Llama(Setup("m", Address.parse("unix:/unused.sock"), options={"draft": "smollm2-135m", "context": 512}))
    engine.hand("draft", smollm2)
    engine.command(smollm2)
    assert engine.plan().draft == str(smollm2)
