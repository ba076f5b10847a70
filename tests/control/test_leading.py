"""Two controls on one PostgreSQL, and a PostgreSQL that restarts under one."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.control.conftest import ControlProcess

from tokenworks.snapshot.sealing import internal_token, read_cluster_key


class Peer(ControlProcess):
    """With the cluster key of another one, and what it says in a file."""

    def __init__(self, directory, home, url):
        self.key_file = Path(home) / "cluster.key"
        super().__init__(Path(directory), "--cluster-key-file", str(self.key_file), "--database", url)

    def spawn(self):
        log = (self.data_dir / "errors").open("w+b")
        command = [sys.executable, "-m", "tokenworks.control", "--data-dir", str(self.data_dir), *self.options]
        self._process = subprocess.Popen(command, env=self._environment, stderr=log)
        self._process.stderr = log

    @property
    def token(self):
        return internal_token(read_cluster_key(self.key_file))

    @property
    def errors(self):
        return (self.data_dir / "errors").read_text()

    @property
    def process(self):
        return self._process

    @property
    def answers(self):
        try:
            return self.internal("GET", "/internal/v1/health").status == 200
        except OSError:
            return False


@pytest.fixture
def pair(own_postgres):
    """(the server, two controls on one database that are not started)"""
    url = own_postgres.database()
    with tempfile.TemporaryDirectory(prefix="twc") as one, tempfile.TemporaryDirectory(prefix="twc") as two:
        controls = [Peer(directory, one, url) for directory in (one, two)]
        yield own_postgres, *controls
        for process in controls:
            process.close()


def test_the_second_stands_by_and_takes_over(pair, wait_until):
    _, first, second = pair
    first.start()
    key = first.bootstrap["admin_key"]
    made = first.call("POST", "/admin/v1/keys", {"name": "made at the first"}, key)
    assert made.status == 201
    second.spawn()
    wait_until(lambda: "standing by" in second.errors, "the second to stand by")
    assert not second.answers
    assert first.answers
    first.stop(signal.SIGKILL)
    wait_until(lambda: second.answers, "the second to take over")
    listed = second.call("GET", "/admin/v1/keys", None, key)
    assert made.json["id"] in [each["id"] for each in listed.json["data"]]


def test_a_restart_of_the_database_is_survived(pair, wait_until):
    server, first, _ = pair
    first.start()
    for stop in (server.kill, server.stop):
        stop()
        refused = first.admin("GET", "/admin/v1/keys")
        assert (refused.status, refused.error["code"]) == (503, "database")
        server.start()
        wait_until(lambda: first.admin("GET", "/admin/v1/keys").status == 200, "the database's return")
    assert first.stop() == 0


def test_who_lost_the_lock_while_the_database_was_away_stops(pair, wait_until):
    server, first, second = pair
    first.start()
    second.spawn()
    wait_until(lambda: "standing by" in second.errors, "the second to stand by")
    first.process.send_signal(signal.SIGSTOP)
    server.kill()
    server.start()
    wait_until(lambda: second.answers, "the second to take over")
    first.process.send_signal(signal.SIGCONT)
    wait_until(lambda: first.process.poll() is not None, "the first to stop")
    assert "another control has taken over" in first.errors
    assert second.answers
