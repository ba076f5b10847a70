"""`tokenworks credentials`: keys of providers that a project brings itself."""

import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import USAGE, CommandFailed

PROJECTS = "/v1/organization/projects"

Project = Annotated[str, typer.Option("--project", help="The project's id.")]

credentials = typer.Typer(no_args_is_help=True, help="A project's own keys of providers.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(credentials, name="credentials")


@credentials.command(epilog="Example: tokenworks credentials add openai --project proj_123 --from key.txt")
def add(
    provider: Annotated[str, typer.Argument(help="The provider's name, as targets have it.")],
    project: Project,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="The key's file; otherwise it is read from stdin.")
    ] = None,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make a project's requests to a provider with its own key. The key itself is never an argument or shown again."""
    wish = {"provider": provider, "key": _secret(source), **({"name": name} if name else {})}
    made = connection.call(connection.administrator(url, key, data_dir), "post", _path(project), wish)
    nouns.done(made, f"{made['id']}: {project} uses its own key for {provider}.", json)


@credentials.command("list", epilog="Example: tokenworks credentials list --project proj_123")
def list_credentials(
    project: Project,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """The keys that a project brought, the one that is used first above."""
    path = f"{_path(project)}?limit=100"
    found = connection.call(connection.administrator(url, key, data_dir), "get", path)["data"]
    if json:
        output.print_json(found)
        return
    rows = [
        (each["id"], each["provider"], each["name"], each["redacted_value"], output.when(each["created_at"]))
        for each in found
    ]
    output.print_table(("ID", "PROVIDER", "NAME", "KEY", "SINCE"), rows, wrap=("NAME",))


@credentials.command(epilog="Example: tokenworks credentials remove pkey_01h455vb4pex5vsknk084sn02q --project proj_123")
def remove(
    id: Annotated[str, typer.Argument(help="The id that `credentials list` shows.")],
    project: Project,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Take a key away. Without one, the project's requests are made with the operator's keys, and charged."""
    path = f"{_path(project)}/{quote(id, safe='')}"
    gone = connection.call(connection.administrator(url, key, data_dir), "delete", path)
    nouns.done(gone, f"{id} is removed.", json)


def _path(project: str) -> str:
    return f"{PROJECTS}/{quote(project, safe='')}/provider_keys"


def _secret(source: Path | None) -> str:
    try:
        text = source.read_text() if source else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{source} cannot be read: {error}", USAGE) from error
    if not text.strip():
        raise CommandFailed("no key was given: write it to standard input, or name its file with --from", USAGE)
    return text.strip()
