"""The processes a benchmark needs, each pinned to a core: nginx, wrk and our own planes."""

import contextlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
BODY = {
    "model": "assistant",
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Hello, who are you? Tell me in one sentence."},
    ],
    "max_tokens": 64,
}
STREAM_CHUNKS = 256


def require(*tools: str) -> None:
    """Exit with the remedy when a tool is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        sys.exit(f"this benchmark needs {', '.join(missing)}: apt-get install nginx-light wrk")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def process(command: list[str], core: int | None, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    pinned = command if core is None else ["taskset", "-c", str(core), *command]
    with log.open("wb") as out:
        running = subprocess.Popen(pinned, stdout=out, stderr=out)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def wait_http(url: str, seconds: float = 60.0, status: int = 200, *, answered: bool = False) -> float:
    """Seconds until `url` answered with `status`, or with `answered` with any."""
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        with contextlib.suppress(urllib.error.URLError, OSError):
            try:
                told = urllib.request.urlopen(url, timeout=5).status
            except urllib.error.HTTPError as error:
                told = error.code
            if answered or told == status:
                return time.perf_counter() - begun
        time.sleep(0.01)
    sys.exit(f"{url} did not answer {status} within {seconds} s")


def nginx_config(directory: Path, answers: int, proxy: int) -> Path:
    """A static upstream of whole answers on `answers`; a bare proxy to it on `proxy`."""
    message = {"role": "assistant", "content": "Hello there, how can I help you today?"}
    head = {"id": "chatcmpl-1", "created": 1, "model": "m"}
    whole = {
        **head,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21},
    }
    config = directory / f"nginx-{answers}.conf"
    config.write_text(
        f"""
worker_processes 1; daemon off; pid {directory}/nginx-{answers}.pid; error_log {directory}/nginx-error.log;
events {{ worker_connections 2048; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u;
  scgi_temp_path {directory}/s;
  upstream answers {{ server 127.0.0.1:{answers}; keepalive 64; }}
  server {{ listen {answers}; location / {{ default_type application/json; return 200 '{json.dumps(whole)}'; }} }}
  server {{ listen {proxy}; location / {{ proxy_pass http://answers; proxy_http_version 1.1;
    proxy_set_header Connection ""; }} }} }}
"""
    )
    return config


@dataclass(frozen=True)
class Load:
    """What wrk saw: requests/s, p50 and p99 in milliseconds, bytes/s, and answers that were not 200."""

    rate: float
    p50: float
    p99: float
    bytes_per_second: float
    refused: int


def wait_post(url: str, key: str, headers: Mapping[str, str], seconds: float = 120.0) -> None:
    """Until a real request is answered."""
    sent = {"content-type": "application/json", "authorization": f"Bearer {key}", **headers}
    body = json.dumps(BODY).encode()
    host, slash, path = url.removeprefix("http://").partition("/")
    begun, last = time.perf_counter(), ""
    while time.perf_counter() - begun < seconds:
        # Not urllib, whose `Connection: close` one of the gateways passes on and stumbles over.
        connection = http.client.HTTPConnection(host, timeout=20)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("POST", slash + path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
            if answer.status == 200:
                return
            last = f"{answer.status} {text[:300].decode(errors='replace')}"
        time.sleep(0.02)
    sys.exit(f"{url} did not answer within {seconds} s: {last}")


def wrk(
    url: str,
    connections: int,
    seconds: int,
    directory: Path,
    *,
    key: str = "",
    stream: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Load:
    body = json.dumps({**BODY, "stream": True} if stream else BODY)
    more = "".join(f'wrk.headers["{name}"]="{value}"\n' for name, value in (headers or {}).items())
    script = directory / f"{secrets.token_hex(4)}.lua"
    script.write_text(
        f'wrk.method="POST"\nwrk.headers["Content-Type"]="application/json"\n'
        f'wrk.headers["Authorization"]="Bearer {key}"\n{more}wrk.body=[[{body}]]\n'
    )
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    out = subprocess.run([*command, "-s", str(script), url], capture_output=True, text=True, check=True).stdout
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return Load(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", out)),
        p50=_milliseconds(_find(r"\n\s+50%\s+(\S+)", out)),
        p99=_milliseconds(_find(r"\n\s+99%\s+(\S+)", out)),
        bytes_per_second=_size(_find(r"Transfer/sec:\s+(\S+)", out)),
        refused=int(refused[1]) if refused else 0,
    )


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        sys.exit(f"wrk printed nothing like {pattern}:\n{text}")
    return found[1]


def _milliseconds(text: str) -> float:
    for unit, factor in (("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def _size(text: str) -> float:
    for unit, factor in (("GB", 2**30), ("MB", 2**20), ("KB", 2**10), ("B", 1)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def resident_megabytes(pid: int) -> float:
    """Of the process itself, also when taskset became it."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(_find(r"VmRSS:\s+(\d+) kB", status)) / 1024


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, its own and the kernel's for it: other work on the machine hardly shows in it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Planes:
    url: str
    key: str
    gateway: "subprocess.Popen[bytes]"
    directory: Path


@contextlib.contextmanager
def planes(directory: Path, config: str, *, gateway_core: int, control_core: int) -> Iterator[Planes]:
    """Control and a gateway with this configuration, as `tokenworks serve` would start them, but pinned."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenworks.toml").write_text(config)
    (directory / "cluster.key").write_text(secrets.token_hex(32))
    (directory / "cluster.key").chmod(0o600)
    port, control = free_port(), f"unix:{directory}/c.sock"
    shared = ["--cluster-key-file", f"{directory}/cluster.key"]
    control_command = [sys.executable, "-m", "tokenworks.control", "--listen", control, "--data-dir", str(directory)]
    control_command += ["--config", f"{directory}/tokenworks.toml", *shared]
    gateway_command = [sys.executable, "-m", "tokenworks.gateway", "--control", control, "--port", str(port)]
    gateway_command += ["--data-dir", f"{directory}/gateway", *shared]
    with (
        process(control_command, control_core, directory / "control.log"),
        process(gateway_command, gateway_core, directory / "gateway.log") as gateway,
    ):
        url = f"http://127.0.0.1:{port}"
        wait_http(f"{url}/readyz")
        key = json.loads((directory / "bootstrap.json").read_text())["api_key"]
        yield Planes(url, key, gateway, directory)
