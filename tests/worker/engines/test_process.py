"""Reasons of death, last words, and dying together, with real processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from tokenworks.worker.engines.process import Child


def end_of(code: str, act: Callable[[Child], Any] | None = None) -> tuple[str, list[str]]:
    async def watch() -> tuple[str, list[str]]:
        lines: list[str] = []
        up = asyncio.Event()

        def hear(line: str) -> None:
            lines.append(line)
            up.set()

        child = await Child.start([sys.executable, "-c", code], hear)
        if act is not None:
            await up.wait()
            result = act(child)
            if asyncio.iscoroutine(result):
                await result
        reason = await child.ended()
        await child.kill()
        return reason, lines

    return asyncio.run(asyncio.wait_for(watch(), 60))


def test_an_exit_code_with_the_last_words() -> None:
    reason, lines = end_of("import sys; print('a\\nb\\nc'); print('no weights', file=sys.stderr); sys.exit(3)")
    assert reason.startswith("exited with code 3: ")
    assert reason.endswith("no weights")
    assert set(lines) == {"a", "b", "c", "no weights"}


def test_a_signal_by_name() -> None:
    assert end_of("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")[0] == "killed by SIGSEGV"


def test_a_killed_one() -> None:
    code = "import time; print('up', flush=True); time.sleep(600)"
    assert end_of(code, lambda child: os.kill(child.pid, signal.SIGKILL))[0] == "killed by SIGKILL: up"


def test_one_that_does_not_listen_is_forced() -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    assert end_of(code, lambda child: child.stop())[0] == "killed by SIGKILL: up"


def test_words_without_end_are_bounded() -> None:
    reason, lines = end_of("print('x' * 10_000_000); print('end')")
    assert lines[-1] == "end"
    assert len(reason) < 20_000


def test_standard_input_stays_open_and_ends_with_the_parent(running: Any, wait_until: Any) -> None:
    """The way of systems without a death signal: the child here has nothing but its standard input."""
    code = (
        "import asyncio, sys\n"
        "from tokenworks.worker.engines.process import Child\n"
        "async def main():\n"
        "    command = [sys.executable, '-c', 'import sys; print(sys.stdin.readline()); sys.stdin.read()']\n"
        "    child = await Child.start(command, print, told=b'hello\\n')\n"
        "    print(child.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert parent.stdout.readline().strip() == "hello"
        assert running(child)
        parent.kill()
    wait_until(lambda: not running(child))
