"""Settings of `tokenworks serve`: the command line over the environment over the file over the defaults."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEFAULT_CONFIG = "tokenworks.toml"
DEFAULT_CACHE_DIR = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tokenworks"
PATHS = ("data_dir", "cache_dir", "catalog")


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """By option name. `model` empty: what the configuration names, else the default model. `port` 0: any free port."""

    host: str = "127.0.0.1"
    port: int = 8080
    data_dir: Path = Path(".data")
    cache_dir: Path = DEFAULT_CACHE_DIR
    model: tuple[str, ...] = ()
    catalog: tuple[Path, ...] = ()
    config: Path | None = None
    verbose: bool = False
    json: bool = False


def find_config(given: Path | None, directory: Path) -> Path | None:
    """The configuration file to read: the given one, else tokenworks.toml in `directory` where there is one."""
    if given is not None:
        return given
    beside = directory / DEFAULT_CONFIG
    return beside if beside.is_file() else None


def resolve(given: Mapping[str, Any], file: Mapping[str, Any], config: Path | None = None) -> ServeSettings:
    """Both by option name, checked by whoever read them: `given` holds the command line and the environment (None or
    empty: not given), `file` the `[serve]` table of `config`. A path in the file is relative to the file.
    """
    beside = config.parent if config else Path()
    chosen: dict[str, Any] = {name: _beside(beside, value) if name in PATHS else value for name, value in file.items()}
    chosen |= {name: value for name, value in given.items() if value not in (None, (), [])}
    chosen |= {name: tuple(value) for name, value in chosen.items() if isinstance(value, list)}
    return ServeSettings(**{**chosen, "config": config})


def _beside(directory: Path, value: Any) -> Any:
    if isinstance(value, str):
        return directory / Path(value).expanduser()
    return tuple(directory / Path(each).expanduser() for each in value)
