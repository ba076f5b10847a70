"""What every engine can do for its worker. Two kinds build on it: `server.ServerEngine` brings its own HTTP server in
a child process; `generating.GeneratingEngine` runs in this process behind the worker protocol.

An engine knows how to start, show life and stop. It does not know control, back-off or state: see supervisor.py.
"""

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

if TYPE_CHECKING:  # the table of engines is read by processes that call nobody
    from tokenworks.client import Address
    from tokenworks.models import Entry

Options = TypeVar("Options", bound=msgspec.Struct)


class OptionError(ValueError):
    """A setting that no retry makes right; the message names it and the remedy."""


class EngineFailed(Exception):
    """The engine does not start or does not answer; the message is the reason, in one line."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What an engine is given. `address` is where the gateway will find it; `token`, if set, is demanded there.

    `context_length`, `max_output` and `capabilities` are what the catalog knows of the weights.
    """

    model: str
    address: "Address"
    token: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    """What all workers of a cluster know, and nobody else."""
    options: Mapping[str, Any] = field(default_factory=dict)
    context_length: int | None = None
    max_output: int | None = None
    capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What the gateway needs to call it. `quirks` are names of gateway/upstreams/quirks.py."""

    protocols: tuple[str, ...]
    base_url: str
    quirks: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    context_length: int | None = None
    max_output: int | None = None


class Engine(ABC):
    """`start` and `stop` alternate; one object lives through many restarts."""

    needs_weights = True
    sees = False
    """Whether it reads images, with the projector that belongs to the weights."""
    projector: Path | None = None
    """Set before `start` on an engine that sees, where the catalog names one."""
    more_weights: tuple[str, ...] = ()
    """Options that name weights as well."""

    @abstractmethod
    def __init__(self, setup: Setup) -> None:
        """OptionError when the options are wrong. Nothing is started yet."""

    @abstractmethod
    def describe(self) -> Description: ...

    async def prepare(self, entry: "Entry", weights: Path, cache_dir: Path, explain: Callable[[str], None]) -> Path:
        """Before each start: the file to start with, made of `weights` if that is wanted. `explain` hears how far."""
        return weights

    def hand(self, option: str, weights: Path) -> None:
        """Before each start: the file of what such an option names."""
        raise NotImplementedError(option)

    @abstractmethod
    async def start(self, weights: Path | None) -> None:
        """Returns once a real forward pass answered. EngineFailed says why it did not."""

    @abstractmethod
    async def died(self) -> str:
        """Waits until the engine is dead: the reason."""

    @abstractmethod
    async def probe(self) -> None:
        """One token, really generated. EngineFailed when the answer is wrong; the caller bounds the time."""

    @abstractmethod
    async def progress(self) -> float:
        """A number that moves whenever a forward pass was done, for callers or for a probe."""

    @abstractmethod
    async def in_flight(self) -> int:
        """Requests that are being answered or wait in the engine."""

    @abstractmethod
    async def metrics(self) -> str:
        """The engine's own metrics in Prometheus' text format; may be empty."""

    @abstractmethod
    async def stop(self) -> None:
        """At once; also when it never started."""


def read_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """Options as text or typed -> the engine's record of them. OptionError names the option."""
    for name in given:
        if name not in kind.__struct_fields__:
            near = difflib.get_close_matches(name, kind.__struct_fields__, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(kind.__struct_fields__)}"
            raise OptionError(f"--option {name}: the engine has no such option; {hint}")
        try:
            msgspec.convert({name: given[name]}, kind, strict=False)
        except msgspec.ValidationError as error:
            raise OptionError(f"--option {name}={given[name]}: {str(error).split(' - at')[0]}") from None
    return msgspec.convert(dict(given), kind, strict=False)
