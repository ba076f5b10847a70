"""Real workers, each with a control of its own."""

import contextlib
import os
import signal
import tempfile
from pathlib import Path

from tests.worker.conftest import FakeControl, WorkerProcess

from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.snapshot.sealing import ensure_cluster_key


class Replica:
    """A worker that reports to a control of its own, which says how a gateway is to call it."""

    def __init__(
        self, stack: contextlib.ExitStack, name: str, arguments: tuple[str, ...], key: Path | None = None
    ) -> None:
        """`key`: the cluster's, where it has several."""
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-")))
        self.control = FakeControl(home / "c.sock")
        self.control.start()
        stack.callback(self.control.stop)
        key = key or home / "k"
        ensure_cluster_key(key)
        self.worker = WorkerProcess(home, "--model", "m", *arguments, control=self.control, key=key)
        stack.callback(self.kill)
        self.name = name

    def record(self) -> UpstreamRecord:
        """Once it is ready."""
        beat = self.control.until_beat(lambda beat: bool(beat["state"] == "ready"))
        lists = {key: tuple(beat.get(key) or ()) for key in ("protocols", "quirks")}
        return UpstreamRecord(self.name, beat["provider"], base_url=beat["base_url"], local=True, **lists)

    def kill(self) -> None:
        """Its engine first: a worker that is told of that would restart it."""
        if self.worker.process.poll() is None:
            for pid in (*self.worker.children(), self.worker.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.worker.process.wait()
