"""What the gateway costs in front of a static upstream, beside nginx as a bare proxy on the same core.

Key check, metering and journal are on; control takes the journal in, on the other core or on the gateway's own.
"""

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.processes import (
    LOAD_CORE,
    SERVER_CORE,
    STREAM_CHUNKS,
    Load,
    free_port,
    nginx_config,
    planes,
    process,
    require,
    resident_megabytes,
    wait_http,
    wrk,
)

ROUNDS, SECONDS = 3, 2
STREAMED = {"passed through": "/v1/chat/completions", "translated for Anthropic's clients": "/v1/messages"}
TARGET_CHUNKS = {"passed through": 25_000, "translated for Anthropic's clients": 15_000}
TARGET_RATE, REFERENCE_RATE = 2_500, 32_000
"""The target and the rate of nginx as a bare proxy on the machine it was set on: compare ratios."""


def median(loads: list[Load], name: str) -> float:
    return statistics.median(getattr(load, name) for load in loads)


def main() -> None:
    require("nginx", "wrk", "taskset")
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        directory = Path(name)
        answers = free_port()
        config = nginx_config(directory, answers, free_port())
        with process(["nginx", "-c", str(config)], LOAD_CORE, directory / "nginx.log"):
            wait_http(f"http://127.0.0.1:{answers}/v1/chat/completions")
            _measure(directory, answers)


def _measure(directory: Path, answers: int) -> None:
    path = "/v1/chat/completions"
    rows: dict[str, dict[str, list[Load]]] = {}

    def run(label: str, url: str, key: str = "") -> None:
        for connections in (1, 16):
            loads = [wrk(url, connections, SECONDS, directory, key=key) for _ in range(ROUNDS)]
            rows.setdefault(label, {})[str(connections)] = loads

    direct = f"http://127.0.0.1:{answers}"
    run("the upstream itself", direct + path)
    with _bare_proxy(directory, answers) as proxied:
        run("nginx as a bare proxy", proxied + path)
    config = _config(answers)
    with planes(directory / "a", config, gateway_core=SERVER_CORE, control_core=LOAD_CORE) as running:
        idle = resident_megabytes(running.gateway.pid)
        run("gateway, control elsewhere", running.url + path, running.key)
        busy = resident_megabytes(running.gateway.pid)
    with planes(directory / "b", config, gateway_core=SERVER_CORE, control_core=SERVER_CORE) as running:
        run("gateway, control on its core", running.url + path, running.key)
    streaming = free_port()
    upstream = [sys.executable, "-m", "benchmarks.upstream", str(streaming)]
    with (
        process(upstream, LOAD_CORE, directory / "upstream.log"),
        planes(directory / "c", _config(streaming), gateway_core=SERVER_CORE, control_core=LOAD_CORE) as running,
    ):
        streams = {
            label: [
                wrk(running.url + each, 16, SECONDS, directory, key=running.key, stream=True) for _ in range(ROUNDS)
            ]
            for label, each in STREAMED.items()
        }
    _print(rows, streams, idle, busy)


@contextlib.contextmanager
def _bare_proxy(directory: Path, answers: int) -> Iterator[str]:
    """nginx as a proxy on the server core, in front of the same upstream."""
    own, proxy = free_port(), free_port()
    config = nginx_config(directory, own, proxy)
    config.write_text(config.read_text().replace(f"server 127.0.0.1:{own};", f"server 127.0.0.1:{answers};"))
    with process(["nginx", "-c", str(config)], SERVER_CORE, directory / "proxy.log"):
        wait_http(f"http://127.0.0.1:{proxy}/v1/chat/completions")
        yield f"http://127.0.0.1:{proxy}"


def _config(port: int) -> str:
    return (
        f'[providers.static]\nprotocol = "openai_chat"\nbase_url = "http://127.0.0.1:{port}/v1"\n'
        '[models.assistant]\ntargets = ["static/m"]\nprice = {input = 0.15, output = 0.60}\n'
    )


def _print(rows: dict[str, dict[str, list[Load]]], streams: dict[str, list[Load]], idle: float, busy: float) -> None:
    console = Console()
    table = Table(title=f"Gateway on one core, whole answers (median of {ROUNDS} runs of {SECONDS} s)")
    for column in ("", "1 conn: p50 ms", "added ms", "16 conn: req/s", "of nginx", "p99 ms", "errors"):
        table.add_column(column, justify="left" if not column else "right")
    base = median(rows["the upstream itself"]["1"], "p50")
    reference = median(rows["nginx as a bare proxy"]["16"], "rate")
    for label, loads in rows.items():
        p50, rate = median(loads["1"], "p50"), median(loads["16"], "rate")
        refused = sum(load.refused for each in loads.values() for load in each)
        cells = (f"{p50:.3f}", f"{p50 - base:.3f}", f"{rate:,.0f}", f"{rate / reference:.1%}")
        table.add_row(label, *cells, f"{median(loads['16'], 'p99'):.1f}", str(refused))
    table.caption = f"target {TARGET_RATE / REFERENCE_RATE:.1%} of nginx ({TARGET_RATE:,} to {REFERENCE_RATE:,} req/s)"
    console.print(table)
    for label, loads in streams.items():
        rate = median(loads, "rate")
        console.print(
            f"streams of {STREAM_CHUNKS + 2} chunks, {label}: {rate:,.0f} streams/s = "
            f"{rate * (STREAM_CHUNKS + 2):,.0f} chunks/s (target {TARGET_CHUNKS[label]:,}); "
            f"errors {sum(load.refused for load in loads)}"
        )
    console.print(f"gateway memory: {idle:.0f} MB idle (target 70), {busy:.0f} MB under load")
