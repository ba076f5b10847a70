"""`tokenworks batches`: make, list, look at and cancel batches."""

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks.cli import connection, files, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url

SHOWN_ERRORS = 10
STYLES = {"completed": "green", "failed": "red", "expired": "red", "cancelled": "yellow"}

batches = typer.Typer(no_args_is_help=True, help="Make, list, look at and cancel batches.", rich_markup_mode="rich")

BatchId = Annotated[str, typer.Argument(help="The batch's id, as `batches list` shows it.")]


def register(app: typer.Typer) -> None:
    app.add_typer(batches, name="batches")


@batches.command(epilog="Example: tokenworks batches create requests.jsonl")
def create(
    requests: Annotated[
        str, typer.Argument(help="A file with a request on each line, or the id of one that was sent.")
    ],
    endpoint: Annotated[str, typer.Option(help="What every request is for.")] = "/v1/chat/completions",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make a batch. A file on this machine is sent first."""
    file_id = requests
    if Path(requests).is_file():
        sent = files.send(connection.caller(url, key, data_dir), Path(requests), "batch")
        file_id = connection.run(sent)["id"]
    wish = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
    made = connection.call(connection.caller(url, key, data_dir), "post", "/v1/batches", wish)
    if json:
        output.print_json(made)
    else:
        output.console.print(made["id"])
        output.note(f"Follow it with `tokenworks batches get {made['id']}`.")


@batches.command("list", epilog="Example: tokenworks batches list --limit 5")
def list_batches(
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many to list, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """List the batches of the key's project, newest first."""
    query = {"limit": str(limit)}
    found = connection.call(connection.caller(url, key, data_dir), "get", "/v1/batches", query)["data"]
    if json:
        output.print_json(found)
    else:
        columns = ("ID", "ENDPOINT", "MODEL", "DONE", "FAILED", "TOTAL", "CREATED", "STATUS")
        output.print_table(columns, map(_row, found), right=("DONE", "FAILED", "TOTAL"))


@batches.command(epilog="Example: tokenworks batches get batch_1a2b3c")
def get(
    id: BatchId, url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False
) -> None:
    """Show how far a batch is, and where its results are."""
    _show(_call("get", id, "", url, key, data_dir), json)


@batches.command(epilog="Example: tokenworks batches cancel batch_1a2b3c")
def cancel(
    id: BatchId, url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False
) -> None:
    """End a batch with the results that are there."""
    _show(_call("post", id, "/cancel", url, key, data_dir), json)


def _call(method: Any, id: str, verb: str, url: str, key: str | None, data_dir: Path) -> Any:
    client = connection.caller(url, key, data_dir)
    return connection.call(client, method, f"/v1/batches/{quote(id, safe='')}{verb}")


def _show(batch: dict[str, Any], json: bool) -> None:
    if json:
        output.print_json(batch)
        return
    counts, usage = batch["request_counts"], batch["usage"]
    output.print_table(("ID", "ENDPOINT", "MODEL", "DONE", "FAILED", "TOTAL", "CREATED", "STATUS"), [_row(batch)])
    if counts["completed"]:
        output.note(f"{usage['input_tokens']} input and {usage['output_tokens']} output tokens")
    for name in ("output_file_id", "error_file_id"):
        if batch[name]:
            output.note(f"{name.split('_')[0]}: tokenworks files download {batch[name]}")
    errors = (batch["errors"] or {"data": []})["data"]
    for error in errors[:SHOWN_ERRORS]:
        where = f"line {error['line']}: " if error["line"] else ""
        output.console.print(Text(f"{where}{error['message']}", style="red"))
    if len(errors) > SHOWN_ERRORS:
        output.note(f"and {len(errors) - SHOWN_ERRORS} more")


def _row(batch: dict[str, Any]) -> tuple[object, ...]:
    counts = batch["request_counts"]
    return (
        batch["id"],
        batch["endpoint"],
        batch["model"] or "–",
        counts["completed"],
        counts["failed"],
        counts["total"],
        output.when(batch["created_at"]),
        Text(batch["status"], style=STYLES.get(batch["status"], "")),
    )
