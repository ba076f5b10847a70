"""A request is freed when it ends: nothing of it points in circles, for which the collector would have to stop us."""

import asyncio
import gc
from pathlib import Path

from tests.gateway.limits.kit import Desk, limit

from tokenworks.gateway.admission.limits.memory import MemoryStore
from tokenworks.gateway.metering.attempt import Meter
from tokenworks.journal.writer import Journal
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.telemetry.metrics import Metrics

UPSTREAM = UpstreamRecord("up", "acme", ("openai_chat",), "http://127.0.0.1:9/v1")
REQUESTS = 50


async def _requests(desk: Desk, meter: Meter) -> None:
    for _ in range(REQUESTS):
        async with await desk.hold() as hold:
            attempt = meter.open(hold.asked, 1, desk.targets[0], UPSTREAM)
            hold.add(attempt)
            attempt.observation.deltas = 3
            attempt.complete()


def test_requests_leave_no_circles(tmp_path: Path) -> None:
    async def whole() -> int:
        journal = Journal.open(tmp_path)
        desk = Desk(MemoryStore(), [limit("tokens", 10**9), limit("concurrency", 5, scope="project")])
        await _requests(desk, meter := Meter(journal, Metrics()))
        gc.collect()
        gc.disable()
        try:
            await _requests(desk, meter)
            return gc.collect()
        finally:
            gc.enable()
            await desk.admission.close()
            await journal.close()

    assert asyncio.run(whole()) < REQUESTS
