"""Control's processes in these tests are forks of one that has imported everything: imports are most of a start, and
there are over a hundred starts. Each is a process of its own, to be stopped and killed. tests/serve runs the command.
"""

import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

LENGTH = 4
"""Bytes of a process id, and of an exit code."""


class Fork:
    """What tests need of subprocess.Popen."""

    def __init__(self, stderr: int, told: int) -> None:
        self.stderr = os.fdopen(stderr, "rb")
        self._told = os.fdopen(told, "rb", buffering=0)
        self.pid = int.from_bytes(self._told.read(LENGTH))
        self._code: int | None = None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("control", timeout)
        return code

    def _ended(self, timeout: float) -> int | None:
        if self._code is None and select.select([self._told], [], [], timeout)[0]:
            self._code = int.from_bytes(self._told.read(LENGTH), signed=True)
            self._told.close()
        return self._code


class Origin:
    """The process that is forked."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-P", __file__, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])

    def fork(self, arguments: Sequence[str], environment: dict[str, str]) -> Fork:
        stderr, stderr_end = os.pipe()
        told, told_end = os.pipe()
        socket.send_fds(self._channel, [json.dumps([arguments, environment]).encode()], [stderr_end, told_end])
        os.close(stderr_end)
        os.close(told_end)
        return Fork(stderr, told)

    def close(self) -> None:
        self._channel.close()
        self._process.wait()


@functools.cache
def origin() -> Origin:
    """Close it at the end of the session."""
    return Origin()


def _serve(channel: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    while True:
        call, ends, _, _ = socket.recv_fds(channel, 1 << 20, 2)
        if not call:
            return
        if os.fork() == 0:
            channel.close()
            _watch(*json.loads(call), *ends)
        for end in ends:
            os.close(end)


def _watch(arguments: list[str], environment: dict[str, str], stderr: int, told: int) -> None:
    """Makes the process, and tells its id and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(told)
        os.dup2(stderr, sys.stderr.fileno())
        os.close(stderr)
        os.environ.clear()
        os.environ.update(environment)
        sys.exit(main(arguments))
    os.close(stderr)
    os.write(told, pid.to_bytes(LENGTH))
    os.write(told, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]).to_bytes(LENGTH, signed=True))
    os._exit(0)


if __name__ == "__main__":
    from tokenworks.control.app import main

    _serve(socket.socket(fileno=int(sys.argv[1])))
