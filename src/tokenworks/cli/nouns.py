"""What every noun of the admin API can: be listed and removed. Commands that differ stand in the noun's own file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import USAGE, CommandFailed
from tokenworks.client import Client

PAGE = 100

Project = Annotated[
    str | None, typer.Option("--project", help="The project's id; may be left out where there is only one.")
]
Most = Annotated[int, typer.Option("--limit", min=1, help="How many to list.")]
Query = Mapping[str, str | list[str]]
Column = tuple[str, Callable[[dict[str, Any]], object]]


@dataclass(frozen=True, slots=True)
class Noun:
    """`command` is its group; `path` its collection, where `{project}` stands for the id that --project gives."""

    command: str
    name: str
    path: str
    columns: tuple[Column, ...]
    wrap: tuple[str, ...] = ()

    @property
    def of_a_project(self) -> bool:
        return "{project}" in self.path

    def group(self, help: str) -> typer.Typer:
        return typer.Typer(name=self.command, no_args_is_help=True, help=help, rich_markup_mode="rich")

    def collection(self, client: Callable[[], Client], project: str | None) -> str:
        if not self.of_a_project:
            return self.path
        return self.path.replace("{project}", quote(project or only_project(client), safe=""))


def admin(url: str, key: str | None, data_dir: Path) -> Callable[[], Client]:
    """Makes a client with the admin key, one for each request."""
    return lambda: connection.administrator(url, key, data_dir)


def only_project(client: Callable[[], Client]) -> str:
    found = connection.call(client(), "get", "/v1/organization/projects", {"limit": "2"})["data"]
    if len(found) != 1:
        raise CommandFailed("which project? Name it with --project; `tokenworks projects list` shows them", USAGE)
    return str(found[0]["id"])


def pages(client: Client, path: str, most: int, query: Query | None = None) -> list[dict[str, Any]]:
    """The first `most` objects of a list, over as many pages as that takes."""

    async def collect() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        asked: dict[str, str | list[str]] = dict(query or {})
        async with client:
            while len(found) < most:
                asked["limit"] = str(min(PAGE, most - len(found)))
                page = await client.get(path, asked)
                found += page["data"]
                if not page.get("has_more") or not page["data"]:
                    break
                asked["after"] = page["last_id"]
        return found

    return connection.run(collect())


def show(noun: Noun, found: list[dict[str, Any]], json: bool) -> None:
    if json:
        output.print_json(found)
    else:
        rows = ([make(each) for _, make in noun.columns] for each in found)
        output.print_table([header for header, _ in noun.columns], rows, wrap=noun.wrap)


def show_secret(made: dict[str, Any], secret: str, what: str, json: bool) -> None:
    """Something that is told only now, alone on its line so that a script can take it."""
    if json:
        output.print_json(made)
    else:
        output.console.print(Text(secret, style="bold"), soft_wrap=True)
        output.note(f"{what} It is shown only now: keep it.")


def done(made: dict[str, Any], sentence: str, json: bool) -> None:
    if json:
        output.print_json(made)
    else:
        output.console.print(Text(sentence), soft_wrap=True)


def add_list(group: typer.Typer, noun: Noun) -> None:
    """`tokenworks NOUNS list`."""

    def list_of(project: str | None, most: int, url: str, key: str | None, data_dir: Path, json: bool) -> None:
        client = admin(url, key, data_dir)
        show(noun, pages(client(), noun.collection(client, project), most), json)

    command = group.command("list", help=f"List the {noun.name}s.", epilog=example(noun, "list"))
    if noun.of_a_project:

        @command
        def of_project(
            project: Project = None,
            limit: Most = PAGE,
            url: Url = DEFAULT_URL,
            key: Key = None,
            data_dir: DataDir = DEFAULT_DATA_DIR,
            json: AsJson = False,
        ) -> None:
            list_of(project, limit, url, key, data_dir, json)

    else:

        @command
        def of_organization(
            limit: Most = PAGE,
            url: Url = DEFAULT_URL,
            key: Key = None,
            data_dir: DataDir = DEFAULT_DATA_DIR,
            json: AsJson = False,
        ) -> None:
            list_of(None, limit, url, key, data_dir, json)


def add_remove(group: typer.Typer, noun: Noun, help: str) -> None:
    """`tokenworks NOUNS remove ID`."""

    def remove(id: str, project: str | None, url: str, key: str | None, data_dir: Path, json: bool) -> None:
        client = admin(url, key, data_dir)
        path = f"{noun.collection(client, project)}/{quote(id, safe='')}"
        answer = connection.call(client(), "delete", path)
        done(answer, f"The {noun.name} {id} is removed.", json)

    command = group.command("remove", help=help, epilog=example(noun, "remove ID"))
    if noun.of_a_project:

        @command
        def of_project(
            id: Annotated[str, typer.Argument(help=f"As `{noun.command} list` shows it.")],
            project: Project = None,
            url: Url = DEFAULT_URL,
            key: Key = None,
            data_dir: DataDir = DEFAULT_DATA_DIR,
            json: AsJson = False,
        ) -> None:
            remove(id, project, url, key, data_dir, json)

    else:

        @command
        def of_organization(
            id: Annotated[str, typer.Argument(help=f"As `{noun.command} list` shows it.")],
            url: Url = DEFAULT_URL,
            key: Key = None,
            data_dir: DataDir = DEFAULT_DATA_DIR,
            json: AsJson = False,
        ) -> None:
            remove(id, None, url, key, data_dir, json)


def example(noun: Noun, words: str) -> str:
    return f"Example: tokenworks {noun.command} {words}"
