"""Keys and values in files: what is read is what was written, for whom it was written, or nothing."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.base import OptionError, Setup
from tokenworks.worker.engines.llama.cells import Cells, Layout
from tokenworks.worker.engines.llama.disk import SUFFIX, Disk
from tokenworks.worker.engines.llama.engine import Llama
from tokenworks.worker.engines.llama.options import MEBIBYTE, DiskPlan
from tokenworks.worker.engines.llama.scheduling.prefixes import Match, Prefixes
from tokenworks.worker.engines.llama.scheduling.sequence import Key

LAYOUT = Layout(magic=1, streams=1, middle=(0, 1, 0, 0), rows=((0, 8), (0, 12)))
ROW = 20
ACME: Key = ("acme", "")


def cells(tokens: list[int]) -> Cells:
    """Each row says which token it belongs to."""
    rows = [np.array([[token % 251] * size for token in tokens], np.uint8).reshape(-1, size) for size in (8, 12)]
    return Cells(rows)


class Process:
    """A cache with files, as one process of an engine has it."""

    def __init__(self, folder: Path, memory: int = 1 << 20, limit: int = 1 << 20, weights: str = "w") -> None:
        self.disk = Disk(folder, limit, weights, LAYOUT, keep=3600)
        self.prefixes = Prefixes(memory, [1, 2], shelf=self.disk)
        self.disk.bring_back(self.prefixes)

    def add(self, tokens: list[int], key: Key = ACME) -> None:
        self.prefixes.insert(key, tokens, len(tokens), lambda begin, end: cells(tokens[begin:end]))

    def get(self, tokens: list[int], key: Key = ACME) -> int:
        """How many are there, each with the keys and values that were computed for it."""
        match: Match = self.prefixes.match(key, tokens)
        at = 0
        for size, stored in self.prefixes.fetch(match, match.length):
            assert isinstance(stored, Cells)
            wanted = cells(tokens[at : at + size])
            assert all(np.array_equal(a, b) for a, b in zip(stored.planes, wanted.planes, strict=True))
            at += size
        return at


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Another process on the same files, after the one before has ended."""
    processes: list[Process] = []

    def started(**more: Any) -> Process:
        if processes:
            processes.pop().disk.close()
        processes.append(Process(tmp_path / "kv", **more))
        return processes[-1]

    yield started
    for process in processes:
        process.disk.close()


def size(path: Path) -> int:
    """0 when the thread that writes has removed it meanwhile."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"kv/*/*{SUFFIX}"))


FIRST = [1, 2, *range(10, 60)]
SECOND = [*FIRST[:30], *range(70, 90)]
"""Begins like the first one, whose node is split for it."""


def test_what_was_computed_is_there_after_a_restart(start: Callable[..., Process]) -> None:
    process = start()
    process.add(FIRST)
    process.add(SECOND)
    again = start()
    assert (again.prefixes.used, again.prefixes.nodes) == (0, 4), "in files, none in memory"
    assert (again.get(FIRST), again.get(SECOND)) == (len(FIRST), len(SECOND))
    assert again.prefixes.used == ROW * (len(FIRST) + len(SECOND) - 30), "in memory now"
    assert again.disk.tokens_read > 0
    assert again.get(FIRST, ("other", "")) == 2, "what is public; the rest is acme's"
    assert again.get(FIRST, ("acme", "lora")) == 0


def test_memory_that_is_full_is_not_the_end(start: Callable[..., Process], tmp_path: Path, wait_until: Any) -> None:
    process = start(memory=ROW * 60)
    process.add(FIRST)
    wait_until(lambda: len(files(tmp_path)) == 2 and process.disk._pending == 0)
    other = [1, 2, *range(100, 150)]
    process.add(other)
    assert process.prefixes.used <= ROW * 60
    assert process.get(FIRST) == len(FIRST), "read"
    assert process.prefixes.used <= ROW * 60


@pytest.mark.parametrize("damage", ["a bit", "the end", "all of it", "the head"])
def test_a_damaged_file_is_removed_and_never_used(
    start: Callable[..., Process], tmp_path: Path, wait_until: Any, damage: str
) -> None:
    start().add(FIRST)
    process = start()
    victim = max(files(tmp_path), key=lambda path: path.stat().st_size)
    data = bytearray(victim.read_bytes())
    match damage:
        case "a bit":
            data[-100] ^= 4
        case "the end":
            del data[-1:]
        case "all of it":
            data.clear()
        case "the head":
            data[6] ^= 255
    victim.write_bytes(data)
    assert process.get(FIRST) == 2, "what came before it"
    wait_until(lambda: not victim.exists())
    process.add(FIRST)
    assert process.get(FIRST) == len(FIRST), "computed anew"


def test_files_of_other_weights_old_ones_and_orphans_are_removed(start: Callable[..., Process], tmp_path: Path) -> None:
    start().add(FIRST)
    start(weights="other").disk.close()
    assert files(tmp_path) == []
    process = start(weights="w")
    process.add(FIRST)
    old = start()
    assert len(files(tmp_path)) == 2
    old.disk.close()
    long_ago = time.time() - 7200
    os.utime(min(files(tmp_path), key=lambda path: path.stat().st_size), (long_ago, long_ago))
    process = Process(tmp_path / "kv")
    assert process.get(FIRST) == 0, "what hangs on nothing"
    process.disk.close()
    assert files(tmp_path) == []


def test_the_limit_holds_and_what_is_used_stays(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start(limit=ROW * 120)
    process.add(FIRST)
    for number in range(8):
        process.add([1, 2, 200 + number, *range(30)])
        assert process.disk.used <= ROW * 120
    assert start().disk.used <= ROW * 140, "with the heads of the files"
    assert sum(map(size, files(tmp_path))) < 2 * ROW * 140


def test_two_processes_have_folders_of_their_own(tmp_path: Path) -> None:
    one, other = Process(tmp_path / "kv"), Process(tmp_path / "kv")
    one.add(FIRST)
    other.add(FIRST)
    one.disk.close()
    other.disk.close()
    assert [path.parent.name for path in files(tmp_path)] == ["0", "0", "1", "1"]
    assert oct(files(tmp_path)[0].stat().st_mode & 0o777) == "0o600"
    assert oct(files(tmp_path)[0].parent.stat().st_mode & 0o777) == "0o700"


def test_a_disk_that_takes_nothing_costs_no_answer(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start()
    (tmp_path / "kv" / "0").rename(tmp_path / "gone")
    process.add(FIRST)
    assert process.get(FIRST) == len(FIRST), "from memory"
    process.disk._work.put(None)
    process.disk._thread.join()
    assert all(file.lost for file in process.disk._files.values())


def test_it_has_to_be_said_where() -> None:
    with pytest.raises(OptionError, match="disk_folder"):
        Llama(Setup("m", Any, options={"disk": 100}))


def test_an_engine_goes_on_after_its_restart(bench: Any, smollm2: Path, tmp_path: Path, text_of: Any) -> None:
    request = {
        "messages": (wire.Message("system", "You are terse. " * 40), wire.Message("user", "Name three colours.")),
        "max_tokens": 12,
        "sampling": wire.Sampling(temperature=0.0),
        "tenant": "acme",
    }
    plan = DiskPlan(str(tmp_path / "kv"), 64 * MEBIBYTE, "smollm2", 3600)
    said, cached = [], []
    for _ in range(2):
        engine = type(bench)(smollm2, disk=plan)
        events = engine.ask(**request)
        said.append(text_of(events))
        cached.append(next(event.cached_input for event in events if isinstance(event, wire.Usage)))
        assert "disk_used_bytes" in engine.runner.run(engine.generator.metrics())
        engine.assert_empty()
        engine.close()
    assert said[0] == said[1]
    assert cached[0] < 20 and cached[1] > 150, "what another process computed"
