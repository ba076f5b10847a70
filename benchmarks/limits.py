"""What limits and the journal cost a request, and whether they hold: over-admission, leaked leases, the rate."""

import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from tests.gateway.limits.conftest import LimitServer, started
from tests.gateway.limits.kit import Desk, limit, ran
from tests.gateway.limits.test_traffic import CALLERS, GATEWAYS, LIMITS, gateway

from benchmarks.processes import (
    LOAD_CORE,
    SERVER_CORE,
    cpu_seconds,
    free_port,
    nginx_config,
    planes,
    process,
    require,
    wait_http,
    wrk,
)
from tokenworks.gateway.admission.limits.memory import MemoryStore
from tokenworks.gateway.admission.limits.valkey import ValkeyStore
from tokenworks.gateway.metering.attempt import Meter
from tokenworks.journal.writer import Journal
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.telemetry.metrics import Metrics

REQUESTS, CHUNKS, ABORTED, ROUNDS, SECONDS = 4_000, 20, 10_000, 12, 2
TARGET_CPU, TARGET_MS = 60, 0.35
FOUR = [
    limit("concurrency", 1_000, scope="project"),
    limit("requests", 10**9, strict=False),
    limit("tokens", 10**9, strict=False),
    limit("spend_nano_usd", 10**15, period="month", scope="project"),
]
UPSTREAM = UpstreamRecord("up", "acme", ("openai_chat",), "http://127.0.0.1:9/v1")


def main() -> None:
    require("nginx", "wrk", "taskset")
    console = Console()
    with started() as server:
        with server.client() as client:
            client.config_set("appendfsync", "everysec")
            client.set("tw:born", "1")
        asyncio.run(_cost(console, server))
        _over_admission(console, server)
        asyncio.run(_aborted(console, server))
    _rate(console)


async def _cost(console: Console, server: LimitServer) -> None:
    table = Table(title=f"One request under {len(FOUR)} limits, {REQUESTS:,} of them one after the other")
    for column in ("", "CPU us", "added", "reserve p50 ms", "p99 ms", "calls"):
        table.add_column(column, justify="left" if not column else "right")
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        journal = Journal.open(Path(name))
        meter = Meter(journal, Metrics())
        bare, _ = await _run(Desk(MemoryStore(), []), None)
        table.add_row("no limit, no journal", f"{bare:.0f}", "", "", "", "")
        limited, waits = await _run(Desk(MemoryStore(), FOUR), None)
        table.add_row("limits in process", f"{limited:.0f}", f"{limited - bare:.0f}", *_waits(waits), "")
        both, waits = await _run(Desk(MemoryStore(), FOUR), meter)
        table.add_row("and journaled", f"{both:.0f}", f"{both - bare:.0f}", *_waits(waits), "")
        before = _calls(server)
        shared, waits = await _run(Desk(ValkeyStore(server.url), FOUR), None)
        calls = (_calls(server) - before) / (REQUESTS + REQUESTS // 10)
        table.add_row("limits in Valkey", f"{shared:.0f}", f"{shared - bare:.0f}", *_waits(waits), f"{calls:.2f}")
        await journal.close()
    table.caption = (
        f"targets: {TARGET_CPU} us for limits and ledger in process, one round trip that is waited for (the settlement "
        f"is sent without waiting) of {TARGET_MS} ms at p50"
    )
    console.print(table)


async def _run(desk: Desk, meter: Meter | None) -> tuple[float, list[float]]:
    """CPU microseconds of a request (of the chunk that was disturbed least), and the seconds of each reservation."""
    waits: list[float] = []

    async def one() -> None:
        begun = time.perf_counter()
        hold = await desk.hold(body=200, max_output_tokens=100)
        waits.append(time.perf_counter() - begun)
        async with hold:
            if meter is None:
                ran(hold, 50, 20)
            else:
                attempt = meter.open(hold.asked, 1, desk.targets[0], UPSTREAM)
                hold.add(attempt)
                attempt.complete()

    for _ in range(REQUESTS // 10):
        await one()
    waits.clear()
    spent = []
    for _ in range(CHUNKS):
        begun = time.process_time()
        for _ in range(REQUESTS // CHUNKS):
            await one()
        spent.append((time.process_time() - begun) / (REQUESTS // CHUNKS))
    await desk.admission.close()
    return min(spent) * 1e6, waits


def _waits(waits: list[float]) -> tuple[str, str]:
    return f"{statistics.median(waits) * 1e3:.3f}", f"{statistics.quantiles(waits, n=100)[98] * 1e3:.3f}"


def _calls(server: LimitServer) -> int:
    with server.client() as client:
        stats: Any = client.info("commandstats")
    return int(stats.get("cmdstat_fcall", {}).get("calls", 0))


def _over_admission(console: Console, server: LimitServer) -> None:
    with server.client() as client:
        client.flushall()
        client.set("tw:born", "1")
    context = multiprocessing.get_context("spawn")
    running = context.Array("i", 2)
    admitted = dict.fromkeys(LIMITS, 0)
    with ExitStack() as stack:
        gateways = []
        for number in range(GATEWAYS):
            ours, theirs = context.Pipe()
            each = context.Process(target=gateway, args=(server.url, number, theirs, running))
            each.start()
            stack.callback(each.join, 30)
            stack.callback(ours.send, None)
            gateways.append(ours)
        for turn in range(ROUNDS):
            for number, orders in enumerate(gateways):
                orders.send((turn * GATEWAYS + number, 1 + turn % 10))
            for orders in gateways:
                for one in orders.recv():
                    for name, amount in one.items():
                        admitted[name] += amount
    admitted["running"] = running[1]
    table = Table(title=f"{GATEWAYS} gateways, {GATEWAYS * CALLERS} callers at once, {ROUNDS} rounds, strict limits")
    for column in ("", "limit", "admitted", "over-admission"):
        table.add_column(column, justify="left" if not column else "right")
    for name, used in admitted.items():
        most = LIMITS[name].limit
        table.add_row(name, f"{most:,}", f"{used:,}", f"{max(used - most, 0):,}")
    console.print(table)


async def _aborted(console: Console, server: LimitServer) -> None:
    with server.client() as client:
        client.flushall()
        client.set("tw:born", "1")
    desk = Desk(ValkeyStore(server.url, timeout=5), FOUR)

    async def one(number: int) -> None:
        async with await desk.hold(body=50):
            await asyncio.sleep(0 if number % 3 else 1)

    for _ in range(ABORTED // 200):
        tasks = [asyncio.create_task(one(number)) for number in range(200)]
        await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await desk.admission.settled()
    with server.client() as client:
        leases = sum(client.zcard(key) for key in client.keys("tw:l:*"))
        held = sum(int(client.hget(key, "s") or 0) for key in client.keys("tw:c:*"))
        holds = client.zcard("tw:open")
    console.print(f"{ABORTED:,} aborted streams left {leases} leases, {holds} holds and {held} held units")
    await desk.admission.close()


def _rate(console: Console) -> None:
    """The gateway on one core with limits on key, project and organization, and without."""
    with tempfile.TemporaryDirectory(prefix="tw-bench-") as name:
        directory, answers = Path(name), free_port()
        config = nginx_config(directory, answers, free_port())
        offered = (
            f'[providers.static]\nprotocol = "openai_chat"\nbase_url = "http://127.0.0.1:{answers}/v1"\n'
            '[models.assistant]\ntargets = ["static/m"]\nprice = {input = 0.15, output = 0.60}\n'
        )
        with process(["nginx", "-c", str(config)], LOAD_CORE, directory / "nginx.log"):
            wait_http(f"http://127.0.0.1:{answers}/v1/chat/completions")
            with planes(directory / "a", offered, gateway_core=SERVER_CORE, control_core=LOAD_CORE) as running:
                url = f"{running.url}/v1/chat/completions"
                rates: dict[str, list[float]] = {"off": [], "on": []}
                costs: dict[str, list[float]] = {"off": [], "on": []}
                wrk(url, 16, 1, directory, key=running.key)
                for turn in range(6):
                    mode = ("off", "on")[turn % 2]
                    _limit(running, on=mode == "on")
                    begun = cpu_seconds(running.gateway.pid)
                    rates[mode].append(rate := wrk(url, 16, SECONDS, directory, key=running.key).rate)
                    costs[mode].append((cpu_seconds(running.gateway.pid) - begun) / (rate * SECONDS) * 1e6)
    off, on = statistics.median(rates["off"]), statistics.median(rates["on"])
    console.print(f"gateway at 16 connections: {off:,.0f} req/s without limits, {on:,.0f} with four: {on / off:.1%}")
    off, on = statistics.median(costs["off"]), statistics.median(costs["on"])
    console.print(f"CPU of a whole request there: {off:.0f} us without limits, {on:.0f} us with four")


def _limit(running: Any, *, on: bool) -> None:
    admin = json.loads((running.directory / "bootstrap.json").read_text())["admin_key"]

    def call(method: str, path: str, body: Any = None) -> Any:
        headers = {"authorization": f"Bearer {admin}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(running.url + path, data, headers, method=method)) as answer:
            return json.load(answer)

    if on:
        project = call("GET", "/v1/organization/projects")["data"][0]["id"]
        minute = {"window_seconds": 60}
        for kind, span in (("requests", minute), ("tokens", minute), ("concurrency", {})):
            wish = {"scope": "project", "subject": project, "kind": kind, "limit": 10**12, **span}
            call("POST", "/admin/v1/limits", wish)
        budget = {"scope": "project", "subject": project, "period": "month", "limit_usd": "1000000"}
        call("POST", "/admin/v1/budgets", budget)
    else:
        for each in call("GET", "/admin/v1/limits")["data"]:
            call("DELETE", f"/admin/v1/limits/{each['id']}")
    time.sleep(1.5)
