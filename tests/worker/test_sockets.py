"""Listening: private sockets, stale ones removed, everything else named."""

import socket
from pathlib import Path

import pytest

from tokenworks.client import Address
from tokenworks.worker.sockets import AddressInUse, free_port, host_and_port, listen


def test_a_unix_socket_is_private(home: Path) -> None:
    path = home / "run" / "x.sock"
    with listen(Address.parse(f"unix:{path}")):
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(home: Path) -> None:
    address = Address.parse(f"unix:{home / 'x.sock'}")
    listen(address).close()
    with listen(address), pytest.raises(AddressInUse, match="in use by another process"):
        listen(address)


def test_a_file_is_left_alone(home: Path) -> None:
    (home / "x.sock").write_text("precious")
    with pytest.raises(AddressInUse, match="is no socket"):
        listen(Address.parse(f"unix:{home / 'x.sock'}"))
    assert (home / "x.sock").read_text() == "precious"


def test_a_long_path_is_refused_in_words(home: Path) -> None:
    with pytest.raises(AddressInUse, match="longer than 100 bytes"):
        listen(Address.parse(f"unix:{home}/{'x' * 100}.sock"))


def test_tcp_ports() -> None:
    address = free_port(Address.parse("http://127.0.0.1:0"))
    assert host_and_port(address)[1] > 0
    with listen(address) as first:
        assert first.family == socket.AF_INET
        with pytest.raises(AddressInUse, match=r"cannot listen on http://127.0.0.1"):
            listen(address)
