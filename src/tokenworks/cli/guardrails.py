"""`tokenworks guardrails`: what looks at requests and answers."""

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url

guardrails = typer.Typer(no_args_is_help=True, help="What looks at requests and answers.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(guardrails, name="guardrails")


@guardrails.command("list", epilog="Example: tokenworks guardrails list --model assistant --project proj_123")
def list_guardrails(
    project: Annotated[str, typer.Option("--project", help="Those that look at requests of this project.")] = "",
    key_id: Annotated[str, typer.Option("--key-id", help="The same of an API key, by its id.")] = "",
    model: Annotated[str, typer.Option("--model", help="The same for a model.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Those of the configuration, in the order in which they look."""
    given = {"project_id": project, "key_id": key_id, "model": model}
    query = {name: value for name, value in given.items() if value}
    path = f"/v1/organization/guardrails?{urlencode(query)}" if query else "/v1/organization/guardrails"
    found = connection.call(connection.administrator(url, key, data_dir), "get", path)
    if json:
        output.print_json(found)
        return
    headings = ("NAME", "KIND", "PHASE", "DOES", "FINDS", "APPLIES TO")
    output.print_table(headings, [_row(each) for each in found["data"]])


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    does = found["action"] or f"asks; {found['on_failure']} on failure"
    places = [f"{noun} {name}" for noun in ("model", "project", "key") for name in found[f"{noun}s"]]
    return (
        found["name"],
        found["kind"],
        found["phase"],
        f"{does}, restores" if found["restore"] else does,
        ", ".join(found["entities"] + found["patterns"]) or "-",
        "all" if found["all"] else ", ".join(places),
    )
