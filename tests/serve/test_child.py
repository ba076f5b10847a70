"""Supervision of one process, with real processes: restarts, reasons of death, logs, orderly and forced ends."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenworks.serve import child as child_module
from tokenworks.serve.child import CannotStart, Child, describe
from tokenworks.serve.terminal import Terminal

PATIENCE = 20.0


def python_child(tmp_path: Path, source: str, *arguments: object) -> Child:
    command = [sys.executable, "-c", source, *map(str, arguments)]
    return Child("probe", command, logs=tmp_path, terminal=Terminal())


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.02)


def alive(pid: int) -> bool:
    """A zombie is dead: in a container nobody may reap an orphan."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "probe.log").read_text()


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-signal.SIGSEGV, "killed by SIGSEGV (Segmentation fault)"),
        (-signal.SIGKILL, "killed by SIGKILL (Killed; out of memory?)"),
        (-200, "killed by signal 200"),
    ],
)
def test_the_reason_of_death_is_told_in_words(code: int, text: str) -> None:
    assert describe(code) == text


def test_a_process_that_dies_is_started_again_and_the_reason_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = "import os, sys; open(sys.argv[1], 'a').write('x'); os.kill(os.getpid(), 11)"
    starts = tmp_path / "starts"

    async def scenario() -> None:
        child = python_child(tmp_path, source, starts)
        life = asyncio.create_task(child.run())
        await until(lambda: starts.exists() and len(starts.read_text()) >= 3)
        await child.stop(5)
        await life
        child._terminal.close()

    asyncio.run(scenario())
    told = capfd.readouterr().err
    assert "probe killed by SIGSEGV (Segmentation fault); starts again in 0.2 s" in told
    assert "starts again in 0.4 s" in told
    assert "killed by SIGSEGV" in log_of(tmp_path)


def test_exit_code_two_at_the_first_start_is_final_and_brings_its_own_words(tmp_path: Path) -> None:
    child_source = "import sys; print('no such engine: llamma', file=sys.stderr); sys.exit(2)"

    async def scenario() -> None:
        await python_child(tmp_path, child_source).run()

    with pytest.raises(CannotStart, match="no such engine: llamma"):
        asyncio.run(scenario())


def test_exit_code_two_at_a_later_start_is_tried_again(tmp_path: Path) -> None:
    source = "import sys; f = open(sys.argv[1], 'a'); f.write('x'); sys.exit(1 if f.tell() == 1 else 2)"
    starts = tmp_path / "starts"

    async def scenario() -> None:
        child = python_child(tmp_path, source, starts)
        life = asyncio.create_task(child.run())
        await until(lambda: starts.exists() and len(starts.read_text()) >= 3)
        await child.stop(5)
        await life

    asyncio.run(scenario())


def test_what_it_says_is_logged_and_only_what_matters_is_shown(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = """
import sys, time
print('plain talk', flush=True)
print('{"event": "disk is full", "level": "error", "timestamp": "now", "path": "/x"}', flush=True)
print('y' * 200_000, flush=True)
print('last line without its end', end='', flush=True)
open(sys.argv[1], 'w').close()
time.sleep(60)
"""

    async def scenario() -> None:
        child = python_child(tmp_path, source, tmp_path / "said")
        life = asyncio.create_task(child.run())
        await until((tmp_path / "said").exists)
        await child.stop(5)
        await life
        child._terminal.close()

    asyncio.run(scenario())
    log, told = log_of(tmp_path), capfd.readouterr().err
    assert "plain talk" in log
    assert "last line without its end" in log
    assert "y" * 50_000 in log
    assert "probe | disk is full  path=/x" in told
    assert "plain talk" not in told


def test_stopping_is_bounded_and_takes_descendants_along(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(sys.argv[1], 'w').write(str(grandchild.pid))
time.sleep(600)
"""
    note = tmp_path / "grandchild"

    async def scenario() -> list[int]:
        child = python_child(tmp_path, source, note)
        life = asyncio.create_task(child.run())
        await until(lambda: note.exists() and note.read_text() != "")
        assert child.pid is not None
        pids = [child.pid, int(note.read_text())]
        await child.stop(0.3)
        await life
        child._terminal.close()
        await until(lambda: not any(map(alive, pids)))
        return pids

    assert len(asyncio.run(scenario())) == 2
    assert "probe did not stop within 0.3 s and is killed" in capfd.readouterr().err


def test_descendants_of_a_dead_process_do_not_outlive_it(tmp_path: Path) -> None:
    source = """
import os, signal, subprocess, sys
grandchild = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])
open(sys.argv[1], 'w').write(str(grandchild.pid))
os.kill(os.getpid(), signal.SIGKILL)
"""
    note = tmp_path / "grandchild"

    async def scenario() -> None:
        child = python_child(tmp_path, source, note)
        life = asyncio.create_task(child.run())
        await until(lambda: note.exists() and note.read_text() != "")
        grandchild = int(note.read_text())
        await until(lambda: not alive(grandchild))
        await child.stop(5)
        await life

    asyncio.run(scenario())


def test_stopping_during_the_pause_before_a_restart_is_prompt(tmp_path: Path) -> None:
    async def scenario() -> float:
        child = python_child(tmp_path, "raise SystemExit('no memory left')")
        life = asyncio.create_task(child.run())
        await until(lambda: "exited with code 1: no memory left; starts again in 1.6 s" in log_of(tmp_path))
        begun = time.monotonic()
        await child.stop(30)
        await life
        return time.monotonic() - begun

    assert asyncio.run(scenario()) < PATIENCE


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "LOG_BYTES", 10_000)
    source = "print('\\n'.join('line %d' % n for n in range(20_000)), flush=True); import time; time.sleep(60)"

    async def scenario() -> None:
        child = python_child(tmp_path, source)
        life = asyncio.create_task(child.run())
        await until(lambda: "line 19999" in log_of(tmp_path))
        await child.stop(5)
        await life

    asyncio.run(scenario())
    files = list(tmp_path.glob("probe.log*"))
    assert len(files) == 1 + child_module.LOG_FILES
    assert sum(file.stat().st_size for file in files) <= 10_000 * len(files)
