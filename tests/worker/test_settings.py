"""Every wrong setting is named; the environment counts less than the command line."""

from pathlib import Path

import pytest

from tokenworks.worker.engines import engine_class
from tokenworks.worker.engines.base import OptionError
from tokenworks.worker.settings import read

BASE = ["--model", "m", "--engine", "echo", "--listen", "unix:/run/tw/w.sock"]


def test_defaults(home: Path) -> None:
    settings = read([*BASE, "--option", "rate=3"], {"TOKENWORKS_CACHE_DIR": str(home)})
    assert str(settings.engine_listen) == "unix:/run/tw/w-engine.sock"
    assert settings.options == {"rate": "3"}
    assert settings.cache_dir == home
    assert settings.id == read(BASE, {}).id != read([*BASE[:-1], "unix:/run/tw/v.sock"], {}).id


def test_the_environment_and_the_command_line() -> None:
    environment = {"TOKENWORKS_WORKER_MODEL": "e", "TOKENWORKS_WORKER_DRAIN_LIMIT": "7"}
    settings = read(["--engine", "echo", "--listen", "unix:/r/w.sock", "--drain-limit", "8"], environment)
    assert (settings.model, settings.drain_limit) == ("e", 8.0)


def test_tcp_needs_the_cluster_key_and_keeps_it_secret(key: Path, token: str) -> None:
    tcp = [*BASE[:-1], "http://127.0.0.1:9000"]
    with pytest.raises(OptionError, match="--cluster-key-file is required"):
        read(tcp, {})
    settings = read(tcp, {"TOKENWORKS_CLUSTER_KEY_FILE": str(key)})
    assert settings.token == token
    assert token not in repr(settings)
    assert str(settings.engine_listen) == "http://127.0.0.1:0"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--engine", "echo", "--listen", "unix:/x"], "--model"),
        ([*BASE, "--option", "rate"], "--option rate: write it as NAME=VALUE"),
        ([*BASE, "--health-timeout", "-1"], "--health-timeout -1"),
        ([*BASE, "--drain-limit", "soon"], "--drain-limit soon"),
        ([*BASE, "--control", "http://c:1"], "--cluster-key-file"),
        ([*BASE, "--cluster-key-file", "/nowhere"], "/nowhere"),
        ([*BASE, "--engine-listen", "ftp://x"], "--engine-listen"),
        ([*BASE[:-1], "unix:/a.sock|/prefix"], "without a path"),
        ([*BASE, "--log-level", "loud"], "--log-level loud"),
        ([*BASE, "--retention", "-1"], "--retention -1"),
        ([*BASE, "--trains", "maybe"], "--trains maybe"),
    ],
)
def test_what_is_wrong_is_named(arguments: list[str], named: str) -> None:
    with pytest.raises(OptionError, match=named.replace("|", r"\|")):
        read(arguments, {})


def test_an_unknown_engine_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match="unknown engine 'ecko'; known: echo, llama, llama_server"):
        engine_class("ecko")
