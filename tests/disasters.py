"""A fleet on PostgreSQL and Valkey, and kill -9 of any of its processes at random moments under load.

Two gateways, a control and a worker, started here and not by `tokenworks serve`: a supervisor rightly takes its time
with what dies again and again, and these rounds are to be many.
"""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.conftest import Server, environment, wait_until
from tests.gateway.limits.conftest import LimitServer, started
from tests.load import Load, complete, ledger_differences, usage_rows
from tests.postgres import PostgresServer, running_postgres

CONFIG = """
[models.echo]
engine = "echo"
price = {input = 0.15, output = 0.60}
"""
PACE, LONG = 300, 500
"""Tokens per second of an answer, and of how many the longest are: slow enough to be killed in the middle."""
GATEWAYS = 2
VICTIMS = ("gateway", "control", "postgresql", "valkey")
ROUNDS = 50
PATIENCE = 120.0


class Process:
    """One of ours, with everything it starts."""

    def __init__(self, plane: str, *arguments: str, log: Path, **variables: str) -> None:
        self._command = [sys.executable, "-m", f"tokenworks.{plane}", *arguments]
        self._environment = environment(**variables)
        self._log = log
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.running = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        os.killpg(self.running.pid, signal.SIGKILL)
        self.running.wait()


@dataclass
class Fleet:
    """`server` is control with the first gateway before it."""

    server: Server
    urls: list[str]
    processes: dict[str, Process]
    postgres: PostgresServer
    valkey: LimitServer
    killed: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    """Requests that all its callers sent."""

    def kill(self, victim: str, chance: random.Random) -> str:
        """It is away for a moment, or starts again at once. The URL, where it is a gateway."""
        self.killed[victim] += 1
        number = chance.randrange(GATEWAYS)
        name = f"gateway-{number}" if victim == "gateway" else victim
        part = {"postgresql": self.postgres, "valkey": self.valkey, **self.processes}[name]
        part.kill()
        time.sleep(chance.choice((0.0, chance.uniform(0.0, 0.5))))
        part.start()
        return self.urls[number] if victim == "gateway" else ""

    @contextlib.contextmanager
    def load(self) -> Iterator[Load]:
        with Load(self.server, "echo", self.urls, LONG) as load:
            load.wait_for(10)
            yield load
        self.asked += load.asked


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _ready(url: str) -> bool:
    with urlopen(f"{url}/readyz", timeout=PATIENCE) as answer:
        return bool(answer.status == 200)


@contextlib.contextmanager
def fleet(directory: Path) -> Iterator[Fleet]:
    config = directory / "models.toml"
    config.write_text(CONFIG)
    data = directory / "data"
    data.mkdir(mode=0o700)
    with running_postgres() as postgres, started() as valkey, contextlib.ExitStack() as stack:

        def process(name: str, plane: str, *arguments: str, **variables: str) -> None:
            at = ("--cluster-key-file", str(data / "cluster.key"), *arguments)
            processes[name] = Process(plane, *at, log=directory / f"{name}.log", **variables)
            stack.callback(processes[name].kill)

        processes: dict[str, Process] = {}
        ports = _free_ports(GATEWAYS)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        control = f"unix:{directory}/control.sock"
        at_control = ("--listen", control, "--data-dir", str(data), "--config", str(config))
        process("control", "control", *at_control, TOKENWORKS_CONTROL_DATABASE=postgres.database())
        keys = wait_until(lambda: json.loads((data / "bootstrap.json").read_text()), "the keys")
        echo = ("--model", "echo", "--engine", "echo", "--option", f"rate={PACE}")
        process("worker", "worker", *echo, "--listen", f"unix:{directory}/echo.sock", "--control", control)
        for number, port in enumerate(ports):
            name, place = f"gateway-{number}", ("--port", str(port), "--data-dir", str(directory / f"gateway-{number}"))
            process(name, "gateway", "--control", control, *place, "--limits", valkey.url)
        server = Server(processes["control"].running, urls[0], data, keys["api_key"], keys["admin_key"], ["echo"])
        wait_until(lambda: all(_ready(url) for url in urls), "the gateways")
        for limit in (
            {"kind": "concurrency", "limit": 64, "strict": True},
            {"kind": "spend_nano_usd", "limit": 10**15, "period": "total", "strict": True},
            {"kind": "tokens", "limit": 10**9, "window_seconds": 60, "strict": True},
        ):
            body = {"scope": "model", "subject": "echo", **limit}
            status, answer = server.call("POST", "/admin/v1/limits", body, key=server.admin_key)
            assert status in (200, 201), answer
        yield Fleet(server, urls, processes, postgres, valkey)


def rounds(fleet: Fleet, count: int, chance: random.Random) -> Load:
    """Each kills one of them at a random moment, also while another is still coming back. Callers never pause."""
    with fleet.load() as load:
        for number in range(count):
            time.sleep(chance.uniform(0.0, 0.2))
            victim = VICTIMS[number] if number < len(VICTIMS) else chance.choice(VICTIMS)
            if victim == "gateway":
                load.wait_for(1, PATIENCE)  # not both
            killed = fleet.kill(victim, chance)
            load.wait_for(3, PATIENCE, but=killed)
        load.wait_for(3, PATIENCE)
    return load


@dataclass(frozen=True)
class Losses:
    """In requests, tokens and nano-dollars, as callers counted them. What is after `cut_paid` must be zero."""

    answered: int
    told: int
    billed: int
    """Also of answers that their callers did not see the end of."""
    cut: int
    """Streams that broke off with their gateway: what they cost is known up to its last second."""
    cut_received: int
    cut_paid: int
    missing: int
    doubled: int
    wrong: int
    unasked: int
    open: int
    ledger: list[str]

    @property
    def none(self) -> bool:
        return not (self.missing or self.doubled or self.wrong or self.unasked or self.open or self.ledger)


def reckon(fleet: Fleet, load: Load, until: Callable[..., Any] = wait_until) -> Losses:
    """Once everything has been shipped."""
    server = fleet.server
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
    paid = {name: [row for row in found if row["charge"]] for name, found in rows.items()}
    doubled = sum(len(found) > 1 for found in paid.values())
    return Losses(
        answered=len(load.answered),
        told=sum(load.charged.values()),
        billed=sum(row["charge"] for found in rows.values() for row in found),
        cut=len(load.cut),
        cut_received=sum(load.cut.values()),
        cut_paid=sum(row["usage"]["output"] for name in load.cut for row in paid.get(name, [])),
        missing=missing,
        doubled=doubled,
        wrong=len(billed) - len(right) - missing,
        unasked=max(len(rows) - fleet.asked, 0),
        open=sum(row["outcome"] == "open" for found in rows.values() for row in found),
        ledger=ledger_differences(server),
    )


def visible_after(fleet: Fleet, count: int = 20) -> list[float]:
    """Seconds from the end of an answer until its settled usage is in the usage API."""
    found = []
    known = _newest(fleet)["request_id"]
    for number in range(count):
        status, _ = fleet.server.chat(f"visible {number}")
        assert status == 200
        ended = time.monotonic()
        while (newest := _newest(fleet))["request_id"] == known or newest["outcome"] != "completed":
            assert time.monotonic() - ended < PATIENCE
        known = newest["request_id"]
        found.append(time.monotonic() - ended)
    return found


def _newest(fleet: Fleet) -> Any:
    server = fleet.server
    status, page = server.call("GET", "/admin/v1/usage?limit=1", key=server.admin_key)
    assert status == 200, page
    return page["data"][0]
