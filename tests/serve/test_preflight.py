"""Ports and data directories that cannot be used, each with a message that names the remedy."""

import os
import socket
import stat
from pathlib import Path

import pytest

from tokenworks.serve.preflight import (
    LONGEST_SOCKET_NAME,
    LONGEST_SOCKET_PATH,
    CannotServe,
    claim_port,
    exclusive,
    prepare,
)


def test_a_port_in_use_is_named_and_another_proposed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotServe, match=rf"port {port} on 127\.0\.0\.1 is in use; .*--port {port + 1}"):
            claim_port("127.0.0.1", port)


def test_port_zero_takes_a_free_one() -> None:
    port = claim_port("127.0.0.1", 0)
    assert claim_port("127.0.0.1", port) == port


def test_a_foreign_or_unknown_host_is_refused() -> None:
    with pytest.raises(CannotServe, match=r"203\.0\.113\.7 is not an address of this machine.*--host"):
        claim_port("203.0.113.7", 0)
    with pytest.raises(CannotServe, match=r"'no\.such\.host\.invalid'.*--host"):
        claim_port("no.such.host.invalid", 0)


def test_the_data_directory_is_private(tmp_path: Path) -> None:
    directory = prepare(tmp_path / "new" / "data")
    for path in (directory.root, directory.run, directory.logs, directory.gateway):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert list(directory.root.glob(".write-test*")) == []


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_file_in_place_of_the_data_directory_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(
        CannotServe, match=r"cannot write to the data directory .*taken.* is not a directory; .*--data-dir"
    ):
        prepare(tmp_path / place)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write to")
def test_a_place_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(CannotServe, match="cannot write to the data directory /proc/self/data"):
        prepare(Path("/proc/self/data"))


def test_sockets_move_elsewhere_when_their_path_would_be_too_long(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-directory-with-a-long-name"] * 4)
    directory = prepare(deep)
    try:
        assert not directory.run.is_relative_to(deep)
        assert len(str(directory.run)) + 1 + LONGEST_SOCKET_NAME + 5 <= LONGEST_SOCKET_PATH
        assert prepare(deep).run == directory.run
        directory.run.chmod(0o755)
        with pytest.raises(CannotServe, match=f"{directory.run} is open to other users"):
            prepare(deep)
    finally:
        directory.run.rmdir()


def test_one_data_directory_is_served_once(tmp_path: Path) -> None:
    directory = prepare(tmp_path)
    with (
        exclusive(directory),
        pytest.raises(CannotServe, match=rf"in use by another .*pid {os.getpid()}\).*--data-dir"),
        exclusive(directory),
    ):
        pytest.fail("served twice")
    with exclusive(directory):
        pass


def test_sockets_of_a_killed_run_are_cleared_away(tmp_path: Path) -> None:
    directory = prepare(tmp_path)
    leftover = directory.run / "control.sock"
    leftover.touch()
    with exclusive(directory):
        assert not leftover.exists()
