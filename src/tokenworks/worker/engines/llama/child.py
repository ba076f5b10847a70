"""The child process: weights, scheduler and the worker protocol's server, until the parent goes.

Started as `python -m tokenworks.worker.engines.llama.child`, with the plan on its standard input. A crash of native
code ends this process alone; the worker names its reason and starts another one.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec

from tokenworks.client import Address
from tokenworks.telemetry import logs
from tokenworks.worker.engines.base import EngineFailed, Setup
from tokenworks.worker.engines.llama.generator import Generator
from tokenworks.worker.engines.llama.measurer import Measurer
from tokenworks.worker.engines.llama.options import Plan
from tokenworks.worker.engines.process import die_with_parent
from tokenworks.worker.protocol.standalone import serving

FAILED = 1
SWITCH = 0.0005
"""Seconds after which the event loop has to let the engine's thread go on: each step waits for it."""


async def run(plan: Plan) -> int:
    address = Address.parse(plan.address)
    setup = Setup(plan.model, address, plan.token, context_length=plan.context, max_output=plan.max_output)
    generator = Measurer(setup, plan) if plan.measures else Generator(setup, plan)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(sys.stdin.fileno(), stop.set)  # it ends when the parent does
    try:
        await generator.start(Path(plan.weights))
    except EngineFailed as error:
        print(error, file=sys.stderr, flush=True)
        return FAILED
    died = asyncio.create_task(generator.died())
    stopping = asyncio.create_task(stop.wait())
    try:
        async with serving(generator, address, plan.token):
            await asyncio.wait({died, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if died.done():
            print(died.result(), file=sys.stderr, flush=True)
            return FAILED
        return 0
    finally:
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping
        await generator.stop()
        await died


def main() -> int:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    die_with_parent(plan.parent)
    os.umask(0o077)
    logs.configure("engine", plan.log_level)
    sys.setswitchinterval(SWITCH)
    try:
        import uvloop  # it takes a fifth less of the cores that compute; not there on Windows

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        return runner.run(run(plan))


if __name__ == "__main__":
    sys.exit(main())
