"""Runs the planned children side by side, says when they answer, and stops them in order."""

import asyncio
import http.client
import json
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from tokenworks.serve.child import CannotStart, Child
from tokenworks.serve.plan import Command, Plan
from tokenworks.serve.terminal import Terminal

GATEWAY_GRACE = 35.0
"""Seconds: longer than the gateway's own limit for answers in progress."""
GRACE = 10.0
ASK_EVERY = 0.1
ANSWER_WITHIN = 30.0
"""Readiness means a real answer of the model, and a large one is slow at first."""
EXPLAIN_EVERY = 15.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Supervisor:
    """`run` returns the exit code: 0 after a wanted stop, 2 when a child cannot start, 130 after a forced stop."""

    def __init__(self, plan: Plan, url: str, *, logs: Path, terminal: Terminal, ready: Callable[[], None]) -> None:
        def child(command: Command) -> Child:
            return Child(command.name, command.arguments, logs=logs, terminal=terminal)

        self._gateway = child(plan.gateway)
        self._workers = [child(command) for command in plan.workers]
        self._control = child(plan.control)
        self._url = url
        self._terminal = terminal
        self._ready = ready
        self._stop = asyncio.Event()
        self._forced = False

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._asked_to_stop)
        # The slowest to import first: control. A worker's weights come next.
        children = [self._control, *self._workers, self._gateway]
        lives = [asyncio.create_task(child.run()) for child in children]
        watch = asyncio.create_task(self._watch_readiness())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait([stop, *lives], return_when=asyncio.FIRST_COMPLETED)
        watch.cancel()
        self._terminal.settled = False
        await self._stop_in_order()
        outcomes = await asyncio.gather(*lives, return_exceptions=True)
        stop.cancel()
        return self._exit_code(children, outcomes)

    def _exit_code(self, children: list[Child], outcomes: list[BaseException | None]) -> int:
        code = 130 if self._forced else 0
        for child, outcome in zip(children, outcomes, strict=True):
            if isinstance(outcome, CannotStart):
                self._terminal.error(f"{child.name} cannot start: {outcome}")
                code = 2
            elif isinstance(outcome, BaseException):
                raise outcome
        return code

    def _asked_to_stop(self) -> None:
        if not self._stop.is_set():
            self._terminal.note("stopping: answers in progress may end; Ctrl-C again stops at once")
            self._stop.set()
            return
        self._forced = True
        for child in (self._gateway, *self._workers, self._control):
            child.kill()

    async def _stop_in_order(self) -> None:
        """The gateway first, for it needs the others to finish its answers; control last, to take the journal."""
        await self._gateway.stop(GATEWAY_GRACE)
        await asyncio.gather(*(worker.stop(GRACE) for worker in self._workers))
        await self._control.stop(GRACE)

    async def _watch_readiness(self) -> None:
        """Until the first 200 of /readyz; meanwhile, now and then, say what it waits for."""
        loop = asyncio.get_running_loop()
        explain_at = loop.time() + EXPLAIN_EVERY
        while True:
            status, body = await asyncio.to_thread(ask, self._url, "/readyz")
            if status == 200:
                self._terminal.settled = True
                return self._ready()
            if loop.time() >= explain_at:
                explain_at += EXPLAIN_EVERY
                self._terminal.warn(f"not ready yet: {waits_for(body)}")
            await asyncio.sleep(ASK_EVERY)


def ask(url: str, path: str) -> tuple[int, bytes]:
    """Status and body; 0 when nothing answers. Standard library: this process stays small."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_WITHIN)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


def waits_for(body: bytes) -> str:
    """The reasons in an answer of /readyz that is not 200."""
    try:
        components = json.loads(body)["components"].items()
        return ", ".join(f"{name}: {part['reason']}" for name, part in components if part and part.get("reason"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "the gateway does not answer"
