"""A chaos run: a private stack of one's own configuration in front of chaos, every fault, several clients."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from tokenworks.chaos.cases import Case, write
from tokenworks.chaos.judging import VIOLATION, Verdict, judge
from tokenworks.chaos.server import ChaosServer
from tokenworks.config.records import Configuration
from tokenworks.core.messages import Message, Role, Text
from tokenworks.core.request import Conversation, Request
from tokenworks.protocols import codec

AT_ONCE = 16
START_SECONDS = 60.0


PROGRAM = (sys.executable, "-c", "from tokenworks.cli.main import main; main()")
"""This installation's, whatever else is on the path."""


class CannotRun(Exception):
    """The private stack did not start; the message says why."""


@dataclass(frozen=True, slots=True)
class Result:
    case: Case
    verdict: Verdict

    @property
    def green(self) -> bool:
        return self.verdict.verdict in self.case.hoped_for


def run(
    configuration: Configuration, cases: Sequence[Case], finished: Callable[[Result], None] = lambda result: None
) -> list[Result]:
    """`finished` is called with each result as it comes. CannotRun when the private stack does not start."""
    return asyncio.run(_run(configuration, cases, finished))


async def _run(configuration: Configuration, cases: Sequence[Case], finished: Callable[[Result], None]) -> list[Result]:
    server = ChaosServer(pace=0.005)
    text = write(configuration, cases, await server.start())
    room = asyncio.Semaphore(AT_ONCE)
    try:
        with _private_stack(text) as stack:
            url, key = await asyncio.to_thread(stack.ready)
            async with aiohttp.ClientSession(base_url=url) as session:

                async def one(case: Case) -> Result:
                    async with room:
                        result = Result(case, await _ask(session, key, case))
                    finished(result)
                    return result

                return list(await asyncio.gather(*[one(case) for case in cases]))
    finally:
        await server.close()


async def _ask(session: aiohttp.ClientSession, key: str, case: Case) -> Verdict:
    client = codec(case.client)
    task = Conversation([Message(Role.USER, [Text(f"What does the fox do? ({case.model})")])])
    request = Request(case.model, task, client.name, stream=case.stream, max_output_tokens=100)
    body = client.encode_request(request, case.model, stream=case.stream)
    headers = {"content-type": "application/json", **client.headers(key)}
    begun = time.monotonic()
    received, status, told = b"", 0, {}
    try:
        async with session.post(f"/v1{client.path}", data=body, headers=headers) as response:
            status, told = response.status, {name.lower(): value for name, value in response.headers.items()}
            async for chunk in response.content.iter_any():
                received += chunk
    except aiohttp.ClientError as error:
        seconds = time.monotonic() - begun
        return Verdict(VIOLATION, f"the connection broke: {error}", seconds, seconds / case.bound)
    return judge(client, status, told, received, time.monotonic() - begun, case.bound, stream=case.stream)


class _Stack:
    """A `tokenworks serve` of its own, in a folder of its own, on a port of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log

    def ready(self) -> tuple[str, str]:
        """Its address and a key, once it answers."""
        assert self._process.stdout is not None  # noqa: S101 - it was opened with a pipe
        line = self._process.stdout.readline()
        if not line:
            raise CannotRun(f"the private stack did not start:\n{self._log.read_text()[-2000:]}")
        told = json.loads(line)
        return str(told["base_url"]).removesuffix("/v1"), str(told["api_key"])


@contextmanager
def _private_stack(configuration: str) -> Iterator[_Stack]:
    with tempfile.TemporaryDirectory(prefix="tokenworks-chaos-") as name:
        directory = Path(name)
        file, log = directory / "chaos.toml", directory / "serve.log"
        file.write_text(configuration)
        command = [*PROGRAM, "serve", "--config", str(file), "--port", "0", "--json"]
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [*command, "--data-dir", str(directory / "data")], stdout=subprocess.PIPE, stderr=errors
            )
        try:
            yield _Stack(process, log)
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
