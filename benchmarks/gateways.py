"""Ours beside LiteLLM's proxy and Portkey's gateway: the same upstream, the same load, one core each, in turn.

Ours checks keys, meters and journals, and its control runs on the same core; the others run without a database.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.processes import (
    LOAD_CORE,
    STREAM_CHUNKS,
    Load,
    free_port,
    nginx_config,
    process,
    require,
    wait_http,
    wait_post,
    wrk,
)
from benchmarks.rivals import GATEWAYS, tree_megabytes

ROUNDS, SECONDS = 3, 3
PATH = "/v1/chat/completions"


@dataclass(frozen=True)
class Measured:
    cold: float
    one: Load
    many: Load
    streams: Load
    idle: float
    busy: float


def main() -> None:
    require("nginx", "wrk", "taskset", "node", "npm")
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        directory = Path(name)
        answers, streaming = free_port(), free_port()
        config = nginx_config(directory, answers, free_port())
        upstream = [sys.executable, "-m", "benchmarks.upstream", str(streaming)]
        with (
            process(["nginx", "-c", str(config)], LOAD_CORE, directory / "nginx.log"),
            process(upstream, LOAD_CORE, directory / "upstream.log"),
        ):
            wait_http(f"http://127.0.0.1:{answers}{PATH}")
            rounds = [
                {name: _measure(name, directory / f"{name}-{number}", answers, streaming) for name in GATEWAYS}
                for number in range(ROUNDS)
            ]
    _print({name: [each[name] for each in rounds] for name in GATEWAYS})


def _measure(name: str, directory: Path, answers: int, streaming: int) -> Measured:
    """One round. A gateway that does not answer ends the benchmark: half a table would mislead."""
    start = GATEWAYS[name]
    begun = time.perf_counter()
    with start(directory, answers) as running:
        url = running.url + PATH
        wait_post(url, running.key, running.headers)
        cold = time.perf_counter() - begun
        idle = tree_megabytes(running.pid)
        wrk(url, 16, 1, directory, key=running.key, headers=running.headers)  # warm
        one = wrk(url, 1, SECONDS, directory, key=running.key, headers=running.headers)
        many = wrk(url, 16, SECONDS, directory, key=running.key, headers=running.headers)
        busy = tree_megabytes(running.pid)
    with start(directory / "streams", streaming) as running:
        url = running.url + PATH
        wait_http(url, 120.0, answered=True)
        streams = wrk(url, 16, SECONDS, directory, key=running.key, headers=running.headers, stream=True)
    return Measured(cold, one, many, streams, idle, busy)


def _print(rows: dict[str, list[Measured]]) -> None:
    def median(measured: list[Measured], *path: str) -> float:
        def value(each: object) -> float:
            for name in path:
                each = getattr(each, name)
            return float(each)  # type: ignore[arg-type]

        return statistics.median(value(each) for each in measured)

    table = Table(title=f"Gateways on one core, the same upstream (median of {ROUNDS} rounds of {SECONDS} s, in turn)")
    columns = ("", "req/s", "of ours", "p50 ms (1)", "p99 ms (1)", "p99 ms (16)", "streams/s", "chunks/s")
    for column in (*columns, "idle MB", "busy MB", "cold s", "errors"):
        table.add_column(column, justify="right" if column else "left")
    best = median(rows["Tokenworks"], "many", "rate")
    for name, measured in rows.items():
        rate, streams = median(measured, "many", "rate"), median(measured, "streams", "rate")
        refused = sum(each.one.refused + each.many.refused for each in measured)
        streaming = not any(each.streams.refused for each in measured)
        table.add_row(
            name,
            f"{rate:,.0f}",
            f"{rate / best:.2f}",
            f"{median(measured, 'one', 'p50'):.2f}",
            f"{median(measured, 'one', 'p99'):.2f}",
            f"{median(measured, 'many', 'p99'):.1f}",
            f"{streams:,.1f}" if streaming else "refused",
            f"{streams * (STREAM_CHUNKS + 2):,.0f}" if streaming else "refused",
            f"{median(measured, 'idle'):.0f}",
            f"{median(measured, 'busy'):.0f}",
            f"{median(measured, 'cold'):.2f}",
            str(refused),
        )
    table.caption = (
        "(1) at one connection, (16) at sixteen; ours with control and its database on the same core; "
        "refused: it answered streams with an error"
    )
    Console(width=max(Console().width, 140)).print(table)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(str(error))
