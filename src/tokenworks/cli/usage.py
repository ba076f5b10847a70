"""`tokenworks usage`: what was answered, what it took and what it cost."""

import re
import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.text import Text

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url

PAGE = 1000
SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
STYLES = {"completed": "green", "open": "yellow", "cancelled": "yellow"}


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: tokenworks usage --since 24h --model smollm2-135m")(usage)


def moment(text: str) -> int:
    """A time ago (90m, 24h, 7d, 2w) or a date in local time (2026-11-23, 2026-11-23T08:00) -> Unix seconds."""
    if ago := re.fullmatch(r"(\d{1,6})([mhdw])", text):
        return int(time.time()) - int(ago[1]) * SECONDS[ago[2]]
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time; write 24h, 7d, 2026-11-23 or 2026-11-23T08:00") from None


def usage(
    since: Annotated[
        int | None, typer.Option(parser=moment, metavar="TIME", help="From then on: 24h, 7d, a date.")
    ] = None,
    until: Annotated[int | None, typer.Option(parser=moment, metavar="TIME", help="Up to then, exclusive.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    key_id: Annotated[str | None, typer.Option(help="Only this key, by its id.")] = None,
    alias: Annotated[str | None, typer.Option(help="Only what came through this virtual model.")] = None,
    shadow: Annotated[
        bool | None, typer.Option("--shadow/--no-shadow", help="Only copies that a virtual model had made, or none.")
    ] = None,
    byok: Annotated[
        bool | None, typer.Option("--byok/--no-byok", help="Only what went with keys that projects brought, or none.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many attempts to list, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """List the attempts, newest first, and the totals of all that match.

    VIA is the upstream that answered; FIRST and TOTAL are seconds to its first token and to its end.
    """
    wanted = {"start": since, "end": until, "model": model, "key_id": key_id, "alias": alias, "shadow": shadow} | {
        "byok": byok
    }
    query = {name: str(value) for name, value in wanted.items() if value is not None}
    client = connection.administrator(url, key, data_dir)

    async def pages() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        attempts: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True}
        async with client:
            while page["has_more"] and len(attempts) < limit:
                after = {"after": page["last_id"]} if attempts else {}
                page_size = str(min(PAGE, limit - len(attempts)))
                page = await client.get("/admin/v1/usage", {**query, "limit": page_size, **after})
                attempts += page["data"]
        return attempts, page["totals"]

    attempts, totals = connection.run(pages())
    if json:
        output.print_json({"data": attempts, "totals": totals})
    else:
        _print(attempts, totals)


def _print(attempts: list[dict[str, Any]], totals: dict[str, Any]) -> None:
    output.print_table(
        ("TIME", "MODEL", "VIA", "INPUT", "OUTPUT", "FIRST", "TOTAL", "USD", "OUTCOME"),
        map(_row, attempts),
        right=("INPUT", "OUTPUT", "FIRST", "TOTAL", "USD"),
        wrap=("MODEL", "VIA", "OUTCOME"),
    )
    tokens = totals["usage"]
    shown = f", {len(attempts)} shown" if len(attempts) < totals["attempts"] else ""
    output.note(
        f"\n{totals['attempts']} attempts{shown}: {_input(tokens)} input and {tokens['output']} output tokens, "
        f"{totals['charge_usd']} USD"
    )


def _row(attempt: dict[str, Any]) -> tuple[object, ...]:
    outcome, tokens = attempt["outcome"], attempt["usage"]
    return (
        output.when(attempt["opened_at"]),
        _named(attempt),
        f"{attempt['upstream']} (own key)" if attempt["byok"] else attempt["upstream"],
        _input(tokens),
        f"{tokens['output']}{'~' if attempt['estimated'] else ''}",
        _seconds(attempt["first_token_ns"]),
        _seconds(attempt["duration_ns"]),
        attempt["charge_usd"],
        Text(" ".join(filter(None, (outcome, attempt["error"]))), style=STYLES.get(outcome, "red")),
    )


def _named(attempt: dict[str, Any]) -> str:
    """The model, and the version of the virtual one that led to it."""
    if not attempt["alias"]:
        return str(attempt["model"])
    copied = " copies to" if attempt["shadow"] else ""
    return f"{attempt['alias']}@{attempt['alias_version']}{copied} {attempt['model']}"


def _input(tokens: dict[str, int]) -> int:
    return tokens["input"] + tokens["cached_input"] + tokens["cache_write"]


def _seconds(nanoseconds: int | None) -> str:
    return "–" if nanoseconds is None else f"{nanoseconds / 1e9:.2f}"
