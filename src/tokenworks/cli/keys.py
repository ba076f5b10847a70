"""`tokenworks keys`: make, list, change, rotate and revoke API keys."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url


class Restriction(StrEnum):
    """What may bind a key."""

    MODELS = "models"
    SCOPES = "scopes"
    REGIONS = "regions"
    NETWORKS = "networks"
    EXPIRY = "expires_at"


Models = Annotated[list[str] | None, typer.Option("--model", help="Only this model; may be repeated.")]
Scopes = Annotated[list[str] | None, typer.Option("--scope", help="Only inference, files or batches; may be repeated.")]
Regions = Annotated[list[str] | None, typer.Option("--region", help="Answered only there; may be repeated.")]
Networks = Annotated[
    list[str] | None, typer.Option("--network", metavar="CIDR", help="Used only from there; may be repeated.")
]
Expires = Annotated[
    datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M"], help="When it ends, in local time.")
]
KeyId = Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")]

keys = typer.Typer(
    no_args_is_help=True, help="Make, list, change, rotate and revoke API keys.", rich_markup_mode="rich"
)


def register(app: typer.Typer) -> None:
    app.add_typer(keys, name="keys")


@keys.command(epilog="Example: tokenworks keys create ci --model smollm2-135m --expires 2027-01-31")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    model: Models = None,
    scope: Scopes = None,
    region: Regions = None,
    network: Networks = None,
    expires: Expires = None,
    project: Annotated[str | None, typer.Option(help="The project's id; the oldest when left out.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make a key. Its secret is shown once and kept nowhere."""
    wish = {"name": name, **_policy(model, scope, region, network, expires)}
    if project:
        wish["project_id"] = project
    made = connection.call(connection.administrator(url, key, data_dir), "post", "/admin/v1/keys", wish)
    nouns.show_secret(made, made["key"], f"Key {made['id']} for {made['name']!r}.", json)


@keys.command("list", epilog="Example: tokenworks keys list --json")
def list_keys(
    url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False
) -> None:
    """List the keys, without their secrets."""
    found = connection.call(connection.administrator(url, key, data_dir), "get", "/admin/v1/keys")
    if json:
        output.print_json(found["data"])
    else:
        columns = ("ID", "NAME", "KEY", "ONLY FOR", "STATE", "LAST USED")
        output.print_table(columns, map(_row, found["data"]), wrap=("NAME", "ONLY FOR", "LAST USED", "STATE"))


@keys.command(epilog="Example: tokenworks keys update key_01h455vb4pex5vsknk084sn02q --network 203.0.113.0/24")
def update(
    id: KeyId,
    name: Annotated[str | None, typer.Option(help="Another name.")] = None,
    model: Models = None,
    scope: Scopes = None,
    region: Regions = None,
    network: Networks = None,
    expires: Expires = None,
    free: Annotated[list[Restriction] | None, typer.Option(help="Take this restriction away; may be repeated.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Change what a key may do. What is not named stays as it is."""
    wish = {**_policy(model, scope, region, network, expires), **{each.value: None for each in free or ()}}
    if name:
        wish["name"] = name
    changed = connection.call(connection.administrator(url, key, data_dir), "post", _path(id), wish)
    nouns.done(changed, f"Key {id} is changed.", json)


@keys.command(epilog="Example: tokenworks keys rotate key_01h455vb4pex5vsknk084sn02q --overlap 3600")
def rotate(
    id: KeyId,
    overlap: Annotated[int, typer.Option(min=0, help="Seconds for which the old key is still valid.")] = 86_400,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make a key that may do the same, and let the old one end."""
    wish = {"overlap_seconds": overlap}
    made = connection.call(connection.administrator(url, key, data_dir), "post", f"{_path(id)}/rotate", wish)
    what = f"Key {made['id']} in place of {id}, which ends in {overlap} s."
    nouns.show_secret(made, made["key"], what, json)


@keys.command(epilog="Example: tokenworks keys revoke key_01h455vb4pex5vsknk084sn02q")
def revoke(
    id: KeyId,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Revoke a key: within a second no gateway accepts it."""
    answer = connection.call(connection.administrator(url, key, data_dir), "delete", _path(id))
    if json:
        output.print_json(answer if answer is not None else {"id": id, "revoked": True})
    else:
        output.console.print(f"Key {id} is revoked.")


def _path(id: str) -> str:
    return f"/admin/v1/keys/{quote(id, safe='')}"


def _policy(
    models: list[str] | None,
    scopes: list[str] | None,
    regions: list[str] | None,
    networks: list[str] | None,
    expires: datetime | None,
) -> dict[str, Any]:
    """As the admin API takes it, without what was not named."""
    wish: dict[str, Any] = {"models": models, "scopes": scopes, "regions": regions, "networks": networks}
    if expires:
        wish["expires_at"] = int(expires.timestamp())
    return {name: value for name, value in wish.items() if value}


def _row(key: dict[str, Any]) -> tuple[object, ...]:
    bounds = [value for kind in ("models", "scopes", "regions", "networks") for value in key[kind] or ()]
    used = output.when(key["last_used_at"])
    return key["id"], key["name"], key["redacted"], ", ".join(bounds) or "everything", _state(key), used


def _state(key: dict[str, Any]) -> Text:
    if key["revoked_at"] is not None:
        return Text("revoked", style="red")
    if key["expires_at"] is None:
        return Text("active", style="green")
    ended = key["expires_at"] <= datetime.now().timestamp()
    return Text("expired", style="red") if ended else Text(f"until {output.when(key['expires_at'])}", style="green")
