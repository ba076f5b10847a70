"""The hf: source against a stand-in for the hub, found through HF_ENDPOINT as a mirror would be."""

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

SOURCE = "hf:org/repo/tiny.gguf"
FILE = "/org/repo/resolve/main/tiny.gguf"


@pytest.fixture
def hub(stand: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    stand.weights *= 8  # several of the library's chunks of 10 MiB: only whole ones reach the disk
    stand.digest = hashlib.sha256(stand.weights).hexdigest()
    stand.files[FILE] = stand.weights
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", stand.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return stand


def test_a_file_of_a_mirror(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    answer = fetch_in_process(SOURCE, tmp_path / "cache", sha256=hub.digest)
    assert Path(answer["path"]).read_bytes() == hub.weights
    assert Path(answer["path"]).name == hub.digest
    size = len(hub.weights)
    assert answer["progress"][-1] == [size, size]
    assert not (tmp_path / "hf" / "hub").exists()  # no second copy in the library's own cache


def test_a_revision(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    hub.files["/org/repo/resolve/v1.0/tiny.gguf"] = b"older"
    answer = fetch_in_process(f"{SOURCE}@v1.0", tmp_path)
    assert Path(answer["path"]).read_bytes() == b"older"


def test_a_cut_connection_goes_on_where_it_broke(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    hub.cut_after = [12_000_000]
    answer = fetch_in_process(SOURCE, tmp_path)
    assert Path(answer["path"]).read_bytes() == hub.weights
    assert [headers.get("range") for headers in hub.gets(FILE)] == [None, f"bytes={10 << 20}-"]


def test_a_killed_download_goes_on_in_the_next_process(
    hub: Any, tmp_path: Path, start_fetch: Any, fetch_in_process: Any
) -> None:
    begun = _kill_in_the_middle(hub, tmp_path, start_fetch)
    answer = fetch_in_process(SOURCE, tmp_path)
    assert Path(answer["path"]).read_bytes() == hub.weights
    assert hub.gets(FILE)[-1]["range"] == f"bytes={begun}-"
    assert not list(tmp_path.rglob("*.part"))


def _kill_in_the_middle(hub: Any, cache: Path, start_fetch: Any) -> int:
    """A download is killed after part of it is on disk. Returns the size of the part."""
    hub.stall.clear()
    killed = start_fetch(SOURCE, cache)
    deadline = time.monotonic() + 60
    while not _part(cache) and time.monotonic() < deadline:
        time.sleep(0.02)
    killed.process.kill()
    killed.process.communicate(timeout=60)
    hub.stall.set()
    assert 0 < _part(cache) < len(hub.weights)
    return _part(cache)


def _part(cache: Path) -> int:
    return sum(part.stat().st_size for part in cache.rglob("*.part"))


def test_the_part_of_a_replaced_file_is_not_used(
    hub: Any, tmp_path: Path, start_fetch: Any, fetch_in_process: Any
) -> None:
    _kill_in_the_middle(hub, tmp_path, start_fetch)
    hub.files[FILE] = b"replaced" * 4_000_000
    answer = fetch_in_process(SOURCE, tmp_path)
    assert Path(answer["path"]).read_bytes() == b"replaced" * 4_000_000


def test_a_connection_that_never_brings_anything(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    hub.cut_after = [0] * 20
    answer = fetch_in_process(SOURCE, tmp_path)
    assert answer["error"] == "Interrupted"
    assert "goes on where it was" in answer["text"]


def test_the_token_goes_to_the_hub_and_not_to_its_storage(
    hub: Any, second_stand: Any, tmp_path: Path, fetch_in_process: Any
) -> None:
    storage = second_stand
    storage.files["/blob"] = hub.weights
    del hub.files[FILE]
    hub.answers[FILE] = (
        302,
        {
            "Location": f"{storage.url}/blob",
            "ETag": '"small"',
            "X-Linked-Etag": f'"{hub.digest}"',
            "X-Linked-Size": str(len(hub.weights)),
            "X-Repo-Commit": "c" * 40,
        },
    )
    answer = fetch_in_process(SOURCE, tmp_path, HF_TOKEN="hf_secret")
    assert Path(answer["path"]).read_bytes() == hub.weights
    assert [headers.get("authorization") for headers in hub.gets(FILE)] == ["Bearer hf_secret"]
    assert storage.gets("/blob")
    assert all("authorization" not in headers for _, _, headers in storage.asked)


@pytest.mark.parametrize(
    ("status", "code", "error", "remedy"),
    [
        (403, "GatedRepo", "AccessDenied", "Accept it at"),
        (401, "GatedRepo", "AccessDenied", "HF_TOKEN"),
        (401, "RepoNotFound", "AccessDenied", "does not exist, or is private"),
        (404, "RepoNotFound", "AccessDenied", "does not exist, or is private"),
        (403, "", "AccessDenied", "HF_TOKEN"),
        (404, "EntryNotFound", "SourceMissing", "no file 'tiny.gguf'"),
        (404, "RevisionNotFound", "SourceMissing", "no revision"),
        (500, "", "SourceUnreachable", "answered 500"),
    ],
)
def test_refusals(
    status: int, code: str, error: str, remedy: str, hub: Any, tmp_path: Path, fetch_in_process: Any
) -> None:
    hub.answers[FILE] = (status, {"X-Error-Code": code} if code else {})
    answer = fetch_in_process(SOURCE, tmp_path)
    assert answer["error"] == error, answer
    assert remedy in answer["text"]


def test_no_network(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    answer = fetch_in_process(SOURCE, tmp_path, HF_ENDPOINT="http://127.0.0.1:1")
    assert answer["error"] == "SourceUnreachable"
    assert "HF_ENDPOINT" in answer["text"]


def test_offline_mode(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    answer = fetch_in_process(SOURCE, tmp_path, HF_HUB_OFFLINE="1")
    assert answer["error"] == "SourceUnreachable"
    assert "HF_HUB_OFFLINE" in answer["text"]
    assert hub.asked == []


def test_a_pinned_digest_is_kept_when_the_file_is_lost(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    first = Path(fetch_in_process(SOURCE, tmp_path)["path"])
    first.unlink()
    hub.files[FILE] = b"replaced by its publisher"
    answer = fetch_in_process(SOURCE, tmp_path)
    assert answer["error"] == "ChecksumMismatch"
    assert hub.digest in answer["text"]


def test_a_disk_that_fills_up_in_the_middle(hub: Any, tmp_path: Path, fetch_in_process: Any) -> None:
    answer = fetch_in_process(SOURCE, tmp_path, limit=1_000_000)
    assert answer["error"] == "DiskFull"
    assert not list(tmp_path.rglob("*.part"))
    assert Path(fetch_in_process(SOURCE, tmp_path)["path"]).read_bytes() == hub.weights
