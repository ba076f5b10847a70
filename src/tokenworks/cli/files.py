"""`tokenworks files`: send, list, fetch and delete files."""

import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import CommandFailed
from tokenworks.client import Client

CHUNK = 1024 * 1024

files = typer.Typer(no_args_is_help=True, help="Send, list, fetch and delete files.", rich_markup_mode="rich")

FileId = Annotated[str, typer.Argument(help="The file's id, as `files list` shows it.")]


def register(app: typer.Typer) -> None:
    app.add_typer(files, name="files")


@files.command(epilog="Example: tokenworks files upload requests.jsonl")
def upload(
    path: Annotated[Path, typer.Argument(help="What to send.", exists=True, dir_okay=False, readable=True)],
    purpose: Annotated[str, typer.Option(help="What it is for: batch, user_data, ...")] = "batch",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Send a file."""
    made = connection.run(send(connection.caller(url, key, data_dir), path, purpose))
    if json:
        output.print_json(made)
    else:
        output.console.print(made["id"])
        output.note(f"{made['filename']}, {output.file_size(made['bytes'])}, for {made['purpose']}.")


@files.command("list", epilog="Example: tokenworks files list --purpose batch_output")
def list_files(
    purpose: Annotated[str | None, typer.Option(help="Only files for this.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to list, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """List the files of the key's project, newest first."""
    query = {"limit": str(limit), **({"purpose": purpose} if purpose else {})}
    found = connection.call(connection.caller(url, key, data_dir), "get", "/v1/files", query)["data"]
    if json:
        output.print_json(found)
    else:
        columns = ("ID", "NAME", "PURPOSE", "SIZE", "CREATED", "EXPIRES")
        output.print_table(columns, map(_row, found), right=("SIZE",))


@files.command(epilog="Example: tokenworks files download file-1a2b3c --output results.jsonl")
def download(
    id: FileId,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write it; otherwise to standard output.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Fetch what is in a file."""
    client = connection.caller(url, key, data_dir)
    try:
        if to is None:
            connection.run(_fetch(client, id, sys.stdout.buffer))
            sys.stdout.flush()
        else:
            with to.open("wb") as file:
                connection.run(_fetch(client, id, file))
    except OSError as error:
        raise CommandFailed(f"cannot write {to or 'the output'}: {error.strerror}") from error


@files.command(epilog="Example: tokenworks files delete file-1a2b3c")
def delete(
    id: FileId, url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False
) -> None:
    """Delete a file."""
    answer = connection.call(connection.caller(url, key, data_dir), "delete", f"/v1/files/{quote(id, safe='')}")
    if json:
        output.print_json(answer)
    else:
        output.console.print(f"File {id} is deleted.")


async def send(client: Client, path: Path, purpose: str) -> Any:
    """The file as the server sees it. It is read as it is sent."""
    boundary = secrets.token_hex(16)
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    async with (
        client,
        client.stream("POST", "/v1/files", body=_form(path, purpose, boundary), headers=headers) as answer,
    ):
        return await answer.json()


async def _form(path: Path, purpose: str, boundary: str) -> AsyncIterator[bytes]:
    name = path.name.replace("\\", "\\\\").replace('"', '\\"')
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'.encode()
    yield f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
    yield f"\r\n--{boundary}--\r\n".encode()


async def _fetch(client: Client, id: str, file: Any) -> None:
    async with client, client.stream("GET", f"/v1/files/{quote(id, safe='')}/content") as answer:
        async for chunk in answer.content.iter_chunked(CHUNK):
            file.write(chunk)


def _row(file: dict[str, Any]) -> tuple[object, ...]:
    size, made, ends = output.file_size(file["bytes"]), output.when(file["created_at"]), output.when(file["expires_at"])
    return file["id"], file["filename"], file["purpose"], size, made, ends
