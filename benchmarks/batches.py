"""A batch from its file to its output, on one machine with the echo engine: how fast, and what it takes."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.processes import free_port, process, resident_megabytes, wait_http

COUNTS = (2_000, 10_000)


def main(counts: tuple[int, ...] = COUNTS) -> None:
    table = Table(title="Batches, echo engine, one machine")
    columns = ("lines", "upload s", "check s", "run s", "lines/s", "output s", "control MB", "gateway MB")
    for column in columns:
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        directory = Path(name)
        (directory / "echo.toml").write_text('[models.echo]\nengine = "echo"\n')
        port = free_port()
        command = [str(Path(sys.executable).with_name("tokenworks")), "serve", "--port", str(port)]
        command += ["--data-dir", str(directory / "data"), "--config", str(directory / "echo.toml")]
        with process(command, None, directory / "serve.log"):
            url = f"http://127.0.0.1:{port}"
            wait_http(f"{url}/readyz", 60)
            key = json.loads((directory / "data" / "bootstrap.json").read_text())["api_key"]
            for count in counts:
                table.add_row(*_measure(url, key, count, directory / "data"))
    Console().print(table)


def _measure(url: str, key: str, count: int, data_dir: Path) -> list[str]:
    begun = time.perf_counter()
    file = _call(url, key, "/v1/files", _form(count), "multipart/form-data; boundary=x")["id"]
    times = {"uploaded": time.perf_counter()}
    wish = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = _call(url, key, "/v1/batches", json.dumps(wish).encode(), "application/json")
    peaks = {"control": 0.0, "gateway": 0.0}
    while batch["status"] not in ("completed", "failed"):
        time.sleep(0.05)
        batch = _call(url, key, f"/v1/batches/{batch['id']}")
        times.setdefault(batch["status"], time.perf_counter())
        for plane in peaks:
            peaks[plane] = max(peaks[plane], resident_megabytes(_pid(plane, data_dir)))
    assert batch["request_counts"]["completed"] == count, batch
    ended = times["completed"]
    running = times.get("in_progress", ended)
    finalizing = times.get("finalizing", ended)
    seconds = (times["uploaded"] - begun, running - times["uploaded"], finalizing - running)
    rate = count / max(finalizing - running, 0.001)
    return [f"{count:,}", *(f"{each:.1f}" for each in seconds), f"{rate:.0f}", f"{ended - finalizing:.1f}"] + [
        f"{peak:.0f}" for peak in peaks.values()
    ]


def _form(count: int) -> bytes:
    lines = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "echo", "messages": [{"role": "user", "content": f"request number {number}"}]},
        }
        for number in range(count)
    ]
    head = '--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    head += '--x\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
    return head.encode() + "\n".join(json.dumps(line) for line in lines).encode() + b"\r\n--x--\r\n"


def _call(url: str, key: str, path: str, body: bytes | None = None, content_type: str = "") -> Any:
    headers = {"authorization": f"Bearer {key}", "content-type": content_type}
    with urllib.request.urlopen(urllib.request.Request(url + path, body, headers), timeout=120) as answer:
        return json.loads(answer.read())


def _pid(plane: str, data_dir: Path) -> int:
    found = subprocess.run(["pgrep", "-f", f"tokenworks.{plane} .*{data_dir}"], capture_output=True, text=True)
    return int(found.stdout.split()[0])


if __name__ == "__main__":
    main(tuple(int(word) for word in sys.argv[1:]) or COUNTS)
