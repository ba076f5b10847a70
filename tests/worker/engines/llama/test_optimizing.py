"""Weights in another format: the file that is written, how it is measured, which one is kept and used."""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenworks.client import Address
from tokenworks.models import Cached, Entry, Progress, cached, optimized, remove
from tokenworks.models.optimized import Figures
from tokenworks.worker.engines.base import OptionError, Setup
from tokenworks.worker.engines.gguf import read_metadata
from tokenworks.worker.engines.llama import engine
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.optimizing import choosing, preparing
from tokenworks.worker.engines.llama.optimizing.choosing import TEXT, Candidate, Choice, choose, pick
from tokenworks.worker.engines.llama.optimizing.preparing import prepared
from tokenworks.worker.engines.llama.optimizing.requantize import CannotRequantize, format_of
from tokenworks.worker.weights import fetched


def silent(_: str) -> Callable[..., None]:
    return lambda done, total: None


class Kept:
    """What `choose` did with the default weights, which lie somewhere of their own, as a person's would."""

    def __init__(self, folder: Path, smollm2: Path) -> None:
        self.weights = folder / "mine.gguf"
        shutil.copyfile(smollm2, self.weights)
        self.cache = folder / "cache"
        self.entry = Entry(name="mine", source=f"file:{self.weights}")
        self.short = folder / "text.txt"
        self.short.write_text(TEXT.read_text()[:2800])
        self.choice = self.choose(most_loss=0.05)

    def choose(self, most_loss: float) -> Choice:
        more: Any = {"progress": silent, "text": self.short}
        return choose(self.entry, self.weights, self.cache, formats=("Q8_0", "Q4_1"), most_loss=most_loss, **more)

    def used(self) -> Path:
        return asyncio.run(fetched(self.entry, self.cache, lambda _: None))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, smollm2: Path) -> Iterator[Kept]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "TURNS", 1)
        patch.setattr(choosing, "LEAST_GAIN", 0.0)  # which one is quicker is not for a busy machine to say
        made = Kept(tmp_path_factory.mktemp("optimizing"), smollm2)
    yield made


def test_the_copy_is_the_same_model(kept: Kept) -> None:
    path = kept.choice.path
    assert [one.format for one in kept.choice.candidates] == ["Q4_1", "Q8_0"], "its own format is not written again"
    assert (format_of(kept.weights), format_of(path)) == ("Q4_1", "Q8_0")
    before, after = dict(read_metadata(kept.weights).values), dict(read_metadata(path).values)
    changed = {"general.file_type", "general.quantization_version"}
    assert {k: v for k, v in after.items() if k not in changed} == {k: v for k, v in before.items() if k not in changed}
    model, original = Model(path), Model(kept.weights)
    assert model.pieces == original.pieces
    assert model.tokenize("It is what it was.") == original.tokenize("It is what it was.")
    model.close()
    original.close()


def prepare(kept: Kept, entry: Entry, weights: Path) -> tuple[Path, list[str]]:
    heard: list[str] = []

    async def done() -> Path:
        found = await prepared(entry, weights, kept.cache, heard.append)
        await asyncio.sleep(0)  # what the thread told is on its way
        return found

    return asyncio.run(done()), heard


def write_anew(source: Path, target: Path, _: str, progress: Progress) -> None:
    shutil.copyfile(source, target)
    progress(1, 1)


def test_a_worker_prepares_its_weights_once(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = kept.choice.path
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "choose", None)  # nothing is measured again
        assert prepare(kept, kept.entry, kept.weights) == (copy, [])
        assert prepare(kept, kept.entry, copy) == (copy, []), "the one that fetching gives"
    slower = Figures(1.0, 1.0, 1.0, 70.0)
    monkeypatch.setattr(choosing, "_measured", lambda files, *_: dict.fromkeys(files, slower))
    monkeypatch.setattr(choosing, "LEAST_GAIN", 1.05)
    monkeypatch.setattr(choosing, "requantize", write_anew)
    monkeypatch.setattr(preparing, "FORMATS", ("Q8_0",))
    other = Entry(name="other", source=f"file:{kept.weights}?other")
    found, heard = prepare(kept, other, kept.weights)
    assert found == kept.weights
    assert heard[-1] == "preparing other: writing Q8_0, 100 %"
    assert optimized.decided(other, kept.weights, kept.cache), "that it is best is remembered"
    with monkeypatch.context() as patch:
        patch.setattr(preparing, "choose", None)
        assert prepare(kept, other, kept.weights) == (kept.weights, [])
    optimized.undo(other, kept.cache)
    assert not optimized.decided(other, kept.weights, kept.cache)


def test_weights_of_which_no_copy_can_be_made_are_served(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    broken = kept.weights.with_name("broken.gguf")
    broken.write_bytes(b"GGUF" + bytes(range(200)))
    assert prepare(kept, Entry(name="broken", source=f"file:{broken}"), broken)[0] == broken
    assert "broken is served as it is" in caplog.text


def test_preparing_without_its_library_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    with pytest.raises(OptionError, match=r"--option prepare: .*tokenworks\[optimize\]"):
        engine.Llama(Setup("m", Address.parse("unix:/none.sock"), options={"prepare": "true"}))


def test_its_figures_are_measured(kept: Kept) -> None:
    original, copy = kept.choice.candidates
    assert 10 < original.figures.perplexity < 1000
    assert abs(copy.loss) < 0.05, "eight bits say what four said"
    assert copy.size == kept.choice.path.stat().st_size > original.size
    assert min(getattr(one.figures, speed) for one in (copy, original) for speed in choosing.SPEEDS) > 0


def test_workers_use_it_until_the_original_changes_or_it_is_undone(kept: Kept) -> None:
    assert kept.used() == kept.choice.path
    status = kept.weights.stat()
    os.utime(kept.weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert kept.used() == kept.weights, "another file now, for all we know"
    os.utime(kept.weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert kept.used() == kept.choice.path
    (held,) = cached(kept.cache)
    assert isinstance(held, Cached) and held.origin is not None and held.origin.format == "Q8_0"
    assert remove("mine", kept.cache) == held.size, "a model is removed with its copy"
    assert kept.used() == kept.weights
    assert optimized.undo(kept.entry, kept.cache) == 0


@pytest.mark.parametrize("content", [b"GGUF\x03\x00\x00\x00" + bytes(64), b"GGUF" + bytes(range(200)), None])
def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path, smollm2: Path, content: bytes | None) -> None:
    broken = tmp_path / "broken.gguf"
    with smollm2.open("rb") as file:
        broken.write_bytes(content or file.read(3 << 20))
    entry = Entry(name="broken", source=f"file:{broken}")
    with pytest.raises(CannotRequantize, match=r"broken\.gguf"):
        choose(entry, broken, tmp_path / "cache", formats=("Q8_0",), most_loss=0.1, progress=silent)
    assert cached(tmp_path / "cache") == []


def candidate(name: str, speed: float, perplexity: float, original: Candidate | None = None) -> Candidate:
    return Candidate(name, 1, Figures(speed, speed, speed, perplexity), original)


def test_the_fastest_that_is_good_enough_is_picked() -> None:
    original = candidate("Q4_1", 100, 20.0)
    rough, fine = candidate("Q4_0", 300, 25.0, original), candidate("Q8_0", 200, 20.1, original)
    assert pick(original, [rough, fine], 0.03) is fine
    assert pick(original, [rough, fine], 0.30) is rough
    assert pick(original, [candidate("Q8_0", 104, 20.0, original)], 0.03) is original, "that little is noise"
    assert pick(original, [candidate("Q8_0", 50, 10.0, original)], 0.03) is original
    assert (rough.gain, round(rough.loss, 6)) == (3.0, 0.25)


def test_answers_are_weighed_as_a_provider_computes_them() -> None:
    original = Candidate("Q4_1", 1, Figures(500.0, 130.0, 290.0, 20.0))
    quick_alone = Candidate("Q4_0", 1, Figures(500.0, 190.0, 290.0, 20.0), original)
    quick_together = Candidate("Q8_0", 1, Figures(500.0, 120.0, 580.0, 20.0), original)
    assert pick(original, [quick_alone], 0.03) is original
    assert pick(original, [quick_alone, quick_together], 0.03) is quick_together
