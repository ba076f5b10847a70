"""A whole provider on PostgreSQL and Valkey, and kill -9 of any of its processes at random moments under load."""

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import serving, wait_until
from tests.gateway.limits.conftest import LimitServer, started
from tests.load import Load, complete, ledger_differences, usage_rows
from tests.postgres import PostgresServer, running_postgres

CONFIG = """
[models.echo]
engine = "echo"
price = {input = 0.15, output = 0.60}
"""
VICTIMS = ("gateway", "control", "postgresql", "valkey")
PATIENCE = 120.0


@dataclass
class Provider:
    server: Any
    postgres: PostgresServer
    valkey: LimitServer
    killed: Counter[str] = field(default_factory=Counter)

    def kill(self, victim: str, rest: float) -> None:
        """Our own processes are started again by `tokenworks serve`, the others after `rest` seconds."""
        self.killed[victim] += 1
        if victim == "postgresql":
            self.postgres.kill()
            time.sleep(rest)
            self.postgres.start()
        elif victim == "valkey":
            self.valkey.kill()
            time.sleep(rest)
            self.valkey.start()
        elif pid := self.server.processes().get(victim):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def provider(directory: Path) -> Iterator[Provider]:
    config = directory / "models.toml"
    config.write_text(CONFIG)
    with running_postgres() as postgres, started() as valkey:
        variables = {"TOKENWORKS_CONTROL_DATABASE": postgres.database(), "TOKENWORKS_GATEWAY_LIMITS": valkey.url}
        with serving(directory / "data", "--config", str(config), **variables) as server:
            for limit in (
                {"kind": "concurrency", "limit": 64, "strict": True},
                {"kind": "spend_nano_usd", "limit": 10**15, "period": "total", "strict": True},
                {"kind": "tokens", "limit": 10**9, "window_seconds": 60, "strict": True},
            ):
                body = {"scope": "model", "subject": "echo", **limit}
                status, answer = server.call("POST", "/admin/v1/limits", body, key=server.admin_key)
                assert status in (200, 201), answer
            yield Provider(server, postgres, valkey)


def rounds(provider: Provider, count: int, chance: random.Random, victims: tuple[str, ...] = VICTIMS) -> Load:
    """Each kills one of them at a random moment, then waits until callers are answered again."""
    with Load(provider.server, "echo") as load:
        load.wait_for(20)
        for number in range(count):
            time.sleep(chance.uniform(0.0, 0.4))
            victim = victims[number % len(victims)] if number < len(victims) else chance.choice(victims)
            provider.kill(victim, chance.uniform(0.0, 0.5))
            load.wait_for(20, patience=PATIENCE)
    return load


@dataclass(frozen=True)
class Losses:
    """In requests and nano-dollars. All but the first three must be zero."""

    answered: int
    told: int
    billed: int
    """Also of answers that their callers did not see the end of."""
    missing: int
    doubled: int
    wrong: int
    open: int
    ledger: list[str]

    @property
    def none(self) -> bool:
        return not (self.missing or self.doubled or self.wrong or self.open or self.ledger)


def reckon(provider: Provider, load: Load, until: Callable[..., Any] = wait_until) -> Losses:
    """Once everything has been shipped."""
    server = provider.server
    until(lambda: server.call("GET", "/admin/v1/usage?limit=1", key=server.admin_key)[0] == 200, "control's return")
    with contextlib.suppress(AssertionError):  # what is not complete by then is counted
        until(lambda: complete(server, load), "the usage of every answer", patience=60.0)
    rows = usage_rows(server)
    billed = {name: [row for row in rows.get(name, []) if row["outcome"] == "completed"] for name in load.answered}
    right = [
        name
        for name, found in billed.items()
        if len(found) == 1
        and (found[0]["usage"]["output"], found[0]["charge"]) == (load.answered[name], load.charged[name])
    ]
    missing = sum(not found for found in billed.values())
    doubled = sum(len(found) > 1 for found in billed.values())
    return Losses(
        answered=len(load.answered),
        told=sum(load.charged.values()),
        billed=sum(row["charge"] for found in rows.values() for row in found),
        missing=missing,
        doubled=doubled,
        wrong=len(billed) - len(right) - missing - doubled,
        open=sum(row["outcome"] == "open" for found in rows.values() for row in found),
        ledger=ledger_differences(server),
    )


def visible_after(provider: Provider, count: int = 20) -> list[float]:
    """Seconds from the end of an answer until its settled usage is in the usage API."""
    found = []
    known = _newest(provider)["request_id"]
    for number in range(count):
        status, _ = provider.server.chat(f"visible {number}")
        assert status == 200
        ended = time.monotonic()
        while (newest := _newest(provider))["request_id"] == known or newest["outcome"] != "completed":
            assert time.monotonic() - ended < PATIENCE
        known = newest["request_id"]
        found.append(time.monotonic() - ended)
    return found


def _newest(provider: Provider) -> Any:
    server = provider.server
    status, page = server.call("GET", "/admin/v1/usage?limit=1", key=server.admin_key)
    assert status == 200, page
    return page["data"][0]
