"""`tokenworks admin-keys`, `audit`: who administers, and what was done."""

from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.nouns import Most, Noun
from tokenworks.cli.usage import moment

DAY = 86_400


class AdminRole(StrEnum):
    """What an admin key may be."""

    OPERATOR = "operator"
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"
    BILLING = "billing"


ADMIN_KEYS = Noun(
    "admin-keys",
    "admin key",
    "/v1/organization/admin_api_keys",
    (
        ("ID", lambda each: each["id"]),
        ("NAME", lambda each: each["name"]),
        ("KEY", lambda each: each["redacted_value"]),
        ("ROLE", lambda each: each["role"]),
        ("UNTIL", lambda each: output.when(each["expires_at"])),
        ("LAST USED", lambda each: output.when(each["last_used_at"])),
    ),
    wrap=("NAME", "LAST USED"),
)


def _action(entry: dict[str, Any]) -> Text:
    refused = entry["outcome"] != "done"
    return Text(f"{entry['type']} (refused)" if refused else str(entry["type"]), style="red" if refused else "")


def _actor(entry: dict[str, Any]) -> str:
    key = entry["actor"]["api_key"]
    return str((key["user"] or {}).get("email") or key["name"])


AUDIT = Noun(
    "audit",
    "entry",
    "/v1/organization/audit_logs",
    (
        ("WHEN", lambda each: output.when(each["effective_at"])),
        ("ACTION", _action),
        ("ON", lambda each: each["resource_id"]),
        ("BY", _actor),
        ("FROM", lambda each: each["ip_address"]),
    ),
    wrap=("ON", "BY"),
)

admin_keys = ADMIN_KEYS.group("Make, list and remove admin keys, each with a role.")
nouns.add_list(admin_keys, ADMIN_KEYS)
nouns.add_remove(admin_keys, ADMIN_KEYS, "Remove an admin key; it ends at once.")


def register(app: typer.Typer) -> None:
    app.add_typer(admin_keys)
    app.command("audit", epilog="Example: tokenworks audit --since 7d --event api_key.created")(audit)


@admin_keys.command("create", epilog="Example: tokenworks admin-keys create finance --role billing --days 90")
def create(
    name: Annotated[str, typer.Argument(help="Who or what it is for.")],
    role: Annotated[AdminRole | None, typer.Option(help="What it may do; your own role when left out.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Ends after so many days.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make an admin key. Nobody gives more than he has."""
    wish: dict[str, Any] = {"name": name}
    if role is not None:
        wish["role"] = role.value
    if days is not None:
        wish["expires_in_seconds"] = days * DAY
    made = connection.call(connection.administrator(url, key, data_dir), "post", ADMIN_KEYS.path, wish)
    nouns.show_secret(made, made["value"], f"Admin key {made['id']}, of the role {made['role']}.", json)


def audit(
    since: Annotated[
        int | None, typer.Option(parser=moment, metavar="TIME", help="From then on: 24h, 7d, a date.")
    ] = None,
    event: Annotated[list[str] | None, typer.Option(help="Only this action; may be repeated.")] = None,
    resource: Annotated[list[str] | None, typer.Option(help="Only on this id; may be repeated.")] = None,
    limit: Most = 50,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Show who administered what, newest first. Entries cannot be changed or removed."""
    query: dict[str, Any] = {}
    if since is not None:
        query["effective_at[gte]"] = str(since)
    if event:
        query["event_types"] = event
    if resource:
        query["resource_ids"] = resource
    client = connection.administrator(url, key, data_dir)
    nouns.show(AUDIT, nouns.pages(client, AUDIT.path, limit, query), json)
