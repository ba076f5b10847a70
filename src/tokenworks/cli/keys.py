"""`tokenworks keys`: make, list and revoke API keys."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke API keys.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(keys, name="keys")


@keys.command(epilog="Example: tokenworks keys create ci --model smollm2-135m --expires 2027-01-31")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    model: Annotated[list[str] | None, typer.Option(help="Allow only this model; may be repeated.")] = None,
    expires: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="When it ends, in local time.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown once and kept nowhere."""
    wish: dict[str, Any] = {"name": name}
    if model:
        wish["models"] = model
    if expires:
        wish["expires_at"] = int(expires.timestamp())
    made = connection.call(connection.administrator(url, key, data_dir), "post", "/admin/v1/keys", wish)
    if json:
        output.print_json(made)
    else:
        output.console.print(Text(made["key"], style="bold"), soft_wrap=True)
        output.note(f"Key {made['id']} for {made['name']!r}. It is shown only now: keep it.")


@keys.command("list", epilog="Example: tokenworks keys list --json")
def list_keys(
    url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False
) -> None:
    """List the keys, without their secrets."""
    found = connection.call(connection.administrator(url, key, data_dir), "get", "/admin/v1/keys")
    if json:
        output.print_json(found["data"])
    else:
        columns = ("ID", "NAME", "KEY", "MODELS", "STATE", "LAST USED")
        output.print_table(columns, map(_row, found["data"]), wrap=("NAME", "MODELS", "LAST USED", "STATE"))


@keys.command(epilog="Example: tokenworks keys revoke key_01h455vb4pex5vsknk084sn02q")
def revoke(
    id: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Revoke a key: within a second no gateway accepts it."""
    path = f"/admin/v1/keys/{quote(id, safe='')}"
    answer = connection.call(connection.administrator(url, key, data_dir), "delete", path)
    if json:
        output.print_json(answer if answer is not None else {"id": id, "revoked": True})
    else:
        output.console.print(f"Key {id} is revoked.")


def _row(key: dict[str, Any]) -> tuple[object, ...]:
    models = ", ".join(key["models"]) if key["models"] is not None else "all"
    used = output.when(key["last_used_at"])
    return key["id"], key["name"], key["redacted"], models, _state(key), used


def _state(key: dict[str, Any]) -> Text:
    if key["revoked_at"] is not None:
        return Text("revoked", style="red")
    if key["expires_at"] is None:
        return Text("active", style="green")
    ended = key["expires_at"] <= datetime.now().timestamp()
    return Text("expired", style="red") if ended else Text(f"until {output.when(key['expires_at'])}", style="green")
