"""`tokenworks residency`: where requests of a project or an organization may be answered and kept."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url

ORGANIZATION = "/v1/organization"

Project = Annotated[str, typer.Option("--project", help="The project's id. Without one, the organization's policy.")]

residency = typer.Typer(no_args_is_help=True, help="Where requests may be answered and kept.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(residency, name="residency")


@residency.command(epilog="Example: tokenworks residency show --project proj_123")
def show(
    project: Project = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """The policy that is in force."""
    _print(connection.call(connection.administrator(url, key, data_dir), "get", _path(project)), json)


@residency.command("set", epilog="Example: tokenworks residency set --project proj_123 --region eu-west --no-training")
def set_policy(
    project: Project = "",
    region: Annotated[list[str] | None, typer.Option(help="An allowed region; may be repeated.")] = None,
    jurisdiction: Annotated[list[str] | None, typer.Option(help="An allowed jurisdiction; may be repeated.")] = None,
    retention: Annotated[int | None, typer.Option(help="Seconds for which data may be kept at most.", min=0)] = None,
    no_training: Annotated[bool, typer.Option("--no-training", help="Nobody who may learn from it.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Set the policy, in place of the one that there was. Refused when nobody could keep it."""
    wish = {
        "regions": region or None,
        "jurisdictions": jurisdiction or None,
        "retention_seconds": retention,
        "no_training": no_training,
    }
    _print(connection.call(connection.administrator(url, key, data_dir), "post", _path(project), wish), json)


@residency.command(epilog="Example: tokenworks residency clear --project proj_123")
def clear(
    project: Project = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Take the policy away."""
    gone = connection.call(connection.administrator(url, key, data_dir), "delete", _path(project))
    nouns.done(gone, f"{project or 'The organization'} has no residency policy any more.", json)


def _path(project: str) -> str:
    return f"{ORGANIZATION}/projects/{quote(project, safe='')}/residency" if project else f"{ORGANIZATION}/residency"


def _print(policy: dict[str, Any], json: bool) -> None:
    if json:
        output.print_json(policy)
        return
    kept = policy["retention_seconds"]
    row = (
        policy["id"],
        ", ".join(policy["regions"] or ["any"]),
        ", ".join(policy["jurisdictions"] or ["any"]),
        "any" if kept is None else f"{kept} s",
        "no" if policy["no_training"] else "any",
    )
    output.print_table(("OF", "REGIONS", "JURISDICTIONS", "RETENTION", "TRAINING"), [row])
