"""How long from a command to the first answer. Prints medians; the package and weight caches are warm."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.processes import free_port, process, resident_megabytes, wait_http

ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        directory = Path(name)
        first = _serve(directory)
        again = [_serve(directory) for _ in range(ROUNDS)]
        alone = [_gateway_alone(directory) for _ in range(ROUNDS)]
    table = Table(title=f"Start to first answer (median of {ROUNDS}), seconds")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_column("target", justify="right")
    table.add_row("serve, a new data directory", f"{first:.2f}", "90 with set-up")
    table.add_row("serve, second start", f"{statistics.median(again):.2f}", "8")
    table.add_row("gateway process alone", f"{statistics.median(seconds for seconds, _ in alone):.2f}", "1")
    console = Console()
    console.print(table)
    console.print(f"gateway memory when idle: {statistics.median(size for _, size in alone):.0f} MB (target 70)")


def _serve(directory: Path) -> float:
    """Seconds from the command to the first token of a real model."""
    port = free_port()
    begun = time.perf_counter()
    command = [str(Path(sys.executable).with_name("tokenworks")), "serve", "--port", str(port)]
    command += ["--data-dir", str(directory / "data")]
    with process(command, None, directory / "serve.log"):
        url = f"http://127.0.0.1:{port}"
        wait_http(f"{url}/readyz", 180)
        key = json.loads((directory / "data" / "bootstrap.json").read_text())["api_key"]
        body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
        urllib.request.urlopen(request, timeout=60).read()
        return time.perf_counter() - begun


def _gateway_alone(directory: Path) -> tuple[float, float]:
    """Seconds until the gateway answers by itself, from the snapshot on its disk, and its memory then."""
    port = free_port()
    data = directory / "data"
    command = [sys.executable, "-m", "tokenworks.gateway", "--control", f"unix:{directory}/none.sock"]
    command += ["--port", str(port), "--data-dir", str(data / "gateway")]
    command += ["--cluster-key-file", str(data / "cluster.key")]
    subprocess.run([sys.executable, "-c", "import tokenworks.gateway.app"], check=True)
    begun = time.perf_counter()
    with process(command, None, directory / "gateway.log") as running:
        wait_http(f"http://127.0.0.1:{port}/v1/models", 30, status=401)
        seconds = time.perf_counter() - begun
        time.sleep(1)
        return seconds, resident_megabytes(running.pid)
