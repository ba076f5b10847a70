"""Which server a command speaks to, and with which key."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import typer

from tokenworks.cli.output import USAGE, CommandFailed
from tokenworks.client import CannotConnect, Client, ClientError

ADMIN_PREFIX = "sk-tw-admin-"
Answer = TypeVar("Answer")

Url = Annotated[str, typer.Option("--url", envvar="TOKENWORKS_URL", help="Where the server is.", metavar="URL")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", envvar="TOKENWORKS_API_KEY", help="The key to use; otherwise from the data directory.", metavar="KEY"
    ),
]
DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir", envvar="TOKENWORKS_DATA_DIR", help="Data directory of a server on this machine.", metavar="DIR"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
CacheDir = Annotated[
    Path, typer.Option("--cache-dir", envvar="TOKENWORKS_CACHE_DIR", help="Where weights are kept.", metavar="DIR")
]

DEFAULT_URL = "http://127.0.0.1:8080"
DEFAULT_DATA_DIR = Path(".data")


def caller(url: str, key: str | None, data_dir: Path) -> Client:
    """A client with an API key."""
    return _client(url, key or _bootstrap(data_dir, "api_key"))


def anonymous(url: str) -> Client:
    """A client for what needs no key."""
    return _client(url, None)


def administrator(url: str, key: str | None, data_dir: Path) -> Client:
    """A client with an admin key. An ordinary key from the environment gives way to the data directory's admin key."""
    found = None if key and key.startswith(ADMIN_PREFIX) else _bootstrap(data_dir, "admin_key", required=not key)
    return _client(url, found or key)


def call(client: Client, method: Literal["get", "post", "delete"], path: str, given: Any = None) -> Any:
    """One request; `given` is the query of a get or the body of a post."""

    async def ask() -> Any:
        async with client:
            send = getattr(client, method)
            return await (send(path) if given is None else send(path, given))

    return run(ask())


def run(task: Coroutine[Any, Any, Answer]) -> Answer:
    """Run a command's requests; what the server refused becomes one line with the remedy."""
    try:
        return asyncio.run(task)
    except CannotConnect as error:
        raise CommandFailed(error.message) from error
    except ClientError as error:
        raise CommandFailed(f"{error.message}{_REMEDIES.get(error.status, '')}") from error


_REMEDIES = {
    401: " (give the right key with --key, or the server's --data-dir)",
    403: " (this needs an admin key: give it with --key, or the server's --data-dir)",
}


def _client(url: str, key: str | None) -> Client:
    try:
        return Client(
            url.rstrip("/").removesuffix("/v1"),
            token=key or "",
            remedy="start it with `tokenworks serve`, or give its address with --url",
        )
    except ValueError as error:
        raise CommandFailed(str(error), USAGE) from error


def _bootstrap(data_dir: Path, name: str, *, required: bool = True) -> str | None:
    path = data_dir / "bootstrap.json"
    try:
        return str(json.loads(path.read_bytes())[name])
    except FileNotFoundError:
        if not required:
            return None
        raise CommandFailed(
            f"no key: give one with --key, or the server's data directory with --data-dir (there is no {path})", USAGE
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandFailed(f"cannot read {name} from {path}: {error}; give a key with --key") from error
