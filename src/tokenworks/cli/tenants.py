"""`tokenworks organizations`, `projects`: the tenant tree."""

from typing import Annotated
from urllib.parse import quote

import typer

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.nouns import Most, Noun

ORGANIZATIONS = Noun(
    "organizations",
    "organization",
    "/admin/v1/organizations",
    (
        ("ID", lambda each: each["id"]),
        ("NAME", lambda each: each["name"]),
        ("CREATED", lambda each: output.when(each["created_at"])),
        ("ARCHIVED", lambda each: output.when(each["archived_at"])),
    ),
    wrap=("NAME",),
)
PROJECTS = Noun("projects", "project", "/v1/organization/projects", ORGANIZATIONS.columns, wrap=("NAME",))

organizations = ORGANIZATIONS.group("Make, list and archive organizations: the operator's customers.")
projects = PROJECTS.group("Make, list and archive the projects of an organization.")
nouns.add_list(organizations, ORGANIZATIONS)


def register(app: typer.Typer) -> None:
    app.add_typer(organizations)
    app.add_typer(projects)


@organizations.command(epilog="Example: tokenworks organizations create 'Acme Ltd'")
def create(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make an organization with its first project and the admin key of its owner."""
    made = connection.call(connection.administrator(url, key, data_dir), "post", ORGANIZATIONS.path, {"name": name})
    nouns.show_secret(made, made["admin_key"], f"The owner's admin key of {made['id']} ({name!r}).", json)


@projects.command("create", epilog="Example: tokenworks projects create search --json")
def create_project(
    name: Annotated[str, typer.Argument(help="What it is called.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make a project. Keys, limits, budgets and bills hang on it."""
    made = connection.call(connection.administrator(url, key, data_dir), "post", PROJECTS.path, {"name": name})
    nouns.done(made, made["id"], json)


@projects.command("list", epilog="Example: tokenworks projects list --archived")
def list_projects(
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    limit: Most = nouns.PAGE,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """List the projects."""
    query = {"include_archived": "true"} if archived else {}
    client = connection.administrator(url, key, data_dir)
    nouns.show(PROJECTS, nouns.pages(client, PROJECTS.path, limit, query), json)


def _add_rename_and_archive(group: typer.Typer, noun: Noun) -> None:
    @group.command("rename", help=f"Give the {noun.name} another name.", epilog=nouns.example(noun, "rename ID NAME"))
    def rename(
        id: Annotated[str, typer.Argument(help=f"As `{noun.command} list` shows it.")],
        name: Annotated[str, typer.Argument(help="The new name.")],
        url: Url = DEFAULT_URL,
        key: Key = None,
        data_dir: DataDir = DEFAULT_DATA_DIR,
        json: AsJson = False,
    ) -> None:
        path = f"{noun.path}/{quote(id, safe='')}"
        changed = connection.call(connection.administrator(url, key, data_dir), "post", path, {"name": name})
        nouns.done(changed, f"The {noun.name} {id} is called {name!r}.", json)

    warning = f"Archive the {noun.name}: its keys end within a second, its bills stay. It cannot be undone."

    @group.command("archive", help=warning, epilog=nouns.example(noun, "archive ID"))
    def archive(
        id: Annotated[str, typer.Argument(help=f"As `{noun.command} list` shows it.")],
        url: Url = DEFAULT_URL,
        key: Key = None,
        data_dir: DataDir = DEFAULT_DATA_DIR,
        json: AsJson = False,
    ) -> None:
        path = f"{noun.path}/{quote(id, safe='')}/archive"
        changed = connection.call(connection.administrator(url, key, data_dir), "post", path)
        nouns.done(changed, f"The {noun.name} {id} is archived.", json)


_add_rename_and_archive(organizations, ORGANIZATIONS)
_add_rename_and_archive(projects, PROJECTS)
