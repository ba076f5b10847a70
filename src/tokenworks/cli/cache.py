"""`tokenworks cache`: what a project wants of the cache of answers."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url

Project = Annotated[str, typer.Option("--project", help="The project's id.")]

cache = typer.Typer(no_args_is_help=True, help="Answers given again, per project.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(cache, name="cache")


@cache.command(epilog="Example: tokenworks cache show --project proj_123")
def show(
    project: Project,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """What the project wants."""
    _print(connection.call(connection.administrator(url, key, data_dir), "get", _path(project)), json)


@cache.command("set", epilog="Example: tokenworks cache set --project proj_123 --seconds 3600")
def set_wish(
    project: Project,
    seconds: Annotated[
        int | None, typer.Option(help="So old an answer may be; 0: none, unless a request asks for one.", min=0)
    ] = None,
    similarity: Annotated[
        float | None,
        typer.Option(help="From which on a similar question gets the answer; 0: never.", min=0.0, max=1.0),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Opt in or out, in place of what was set before. Each model's policy says how much there may be."""
    wish = {"seconds": seconds, "similarity": similarity}
    _print(connection.call(connection.administrator(url, key, data_dir), "post", _path(project), wish), json)


@cache.command(epilog="Example: tokenworks cache clear --project proj_123")
def clear(
    project: Project,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """From now on as each model's policy says."""
    gone = connection.call(connection.administrator(url, key, data_dir), "delete", _path(project))
    nouns.done(gone, f"{project} has no wish of its own any more.", json)


def _path(project: str) -> str:
    return f"/v1/organization/projects/{quote(project, safe='')}/cache"


def _print(wish: dict[str, Any], json: bool) -> None:
    if json:
        output.print_json(wish)
        return
    seconds, similarity = wish["seconds"], wish["similarity"]
    row = (
        wish["project_id"],
        "as each model says" if seconds is None else "off" if not seconds else f"{seconds} s",
        "as each model says" if similarity is None else "off" if not similarity else f"{similarity:g}",
    )
    output.print_table(("PROJECT", "ANSWERS UP TO", "SIMILAR FROM"), [row])
