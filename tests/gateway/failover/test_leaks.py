"""No fault leaves a connection, a descriptor, a lease or a running request behind, however many there are."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.gateway.conftest import KEY, key_record
from tests.gateway.failover.conftest import changed

from tokenworks.chaos.answers import TEXT
from tokenworks.snapshot.records import LimitRecord, LimitsRecord, PolicyRecord

FAULTY = 1_200
"""Requests. CONTRIBUTING.md says how to run the 10,000."""
CALLERS = 24


def until(probe: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def test_no_fault_leaves_a_connection_or_a_descriptor(place: Any) -> None:
    faults = [
        "error-500", "reset", "cut-after-3", "garbled-after-2", "missing-terminator", "empty", "content-filter",
        "context-length", "huge-chunk", "unknown-model", "silence", "stall-after-2", "ok",
    ]  # fmt: skip
    limits = LimitsRecord(connect=0.5, first_token=0.15, idle=0.15, total=0.5)
    policy = PolicyRecord(retries=1, hedge=0, breaker=0)
    # One lease that outlives its request would leave too few for so many callers.
    leases = LimitRecord("key", key_record(KEY).id, None, "concurrency", CALLERS)
    place.state = changed(place.state, limits={leases.name: leases})
    names = [place.model(f"a/{fault}", "b/ok", policy=policy, limits=limits) for fault in faults]
    names += [place.model(f"a/{fault}", policy=policy, limits=limits) for fault in faults]
    descriptors = Path(f"/proc/{place.gateway.process.pid}/fd")

    def at_rest() -> int:
        """Once idle connections have been closed."""
        until(lambda: sum(server.connections for server in place.servers.values()) == 0, 20)
        return len(list(descriptors.iterdir())) if descriptors.exists() else 0

    def in_flight() -> bool:
        metrics = place.call("GET", "/metrics").raw.decode()
        return "tokenworks_in_flight_requests 1.0" in metrics  # this very request

    before = at_rest()
    with ThreadPoolExecutor(CALLERS) as callers:
        told = list(callers.map(lambda n: place.ask(names[n % len(names)], stream=n % 3 > 0), range(FAULTY)))
    assert all(one.error or (one.complete and one.text == TEXT) for one in told)
    assert not [one.error for one in told if one.status == 429]
    assert all(TEXT.startswith(one.text) for one in told)
    until(in_flight)
    assert at_rest() <= before + 4  # the test's own last calls
    health = json.loads(place.call("GET", "/healthz").raw)
    assert health["status"] == "ok"
