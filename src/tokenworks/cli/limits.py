"""`tokenworks limits`, `budgets`, `webhooks`: what may be used and spent, and who hears of it."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks.cli import connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.nouns import Noun
from tokenworks.cli.output import USAGE, CommandFailed


class Scope(StrEnum):
    """Whose requests are counted together."""

    KEY = "key"
    PROJECT = "project"
    ORGANIZATION = "organization"
    MODEL = "model"
    PROVIDER = "provider"


class Kind(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    INPUT = "input"
    OUTPUT = "output"
    TOKENS = "tokens"
    UNCACHED = "uncached-input"
    CONCURRENCY = "concurrency"


class Per(StrEnum):
    """The window of a limit."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"


class Period(StrEnum):
    """The period of a budget."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


_KINDS = {"input": "input_tokens", "output": "output_tokens", "uncached-input": "uncached_input_tokens"}
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


def _span(limit: dict[str, Any]) -> str:
    seconds = limit["window_seconds"]
    named = {each: name for name, each in _SECONDS.items()}
    return str(limit["period"] or (named.get(seconds, f"{seconds} s") if seconds else "at once"))


def _on(limit: dict[str, Any]) -> str:
    model = f", model {limit['model']}" if limit["model"] else ""
    return f"{limit['scope']} {limit['subject']}{model}"


def _spent(budget: dict[str, Any]) -> Text:
    reached = budget["thresholds_reached"]
    percent = max(reached, default=0)
    return Text(budget["spent_usd"], style="red" if percent >= 100 else "yellow" if reached else "green")


LIMITS = Noun(
    "limits",
    "limit",
    "/admin/v1/limits",
    (
        ("ID", lambda each: each["id"]),
        ("ON", _on),
        ("KIND", lambda each: each["kind"]),
        ("LIMIT", lambda each: f"{each['limit']:,}"),
        ("PER", _span),
        ("STRICT", lambda each: "strict" if each["strict"] else ""),
    ),
    wrap=("ON", "KIND"),
)
BUDGETS = Noun(
    "budgets",
    "budget",
    "/admin/v1/budgets",
    (
        ("ID", lambda each: each["id"]),
        ("ON", _on),
        ("PER", lambda each: each["period"]),
        ("LIMIT USD", lambda each: each["limit_usd"]),
        ("SPENT USD", _spent),
        ("ENDS", lambda each: output.when(each["period_ends_at"])),
        ("", lambda each: "alerts only" if each["alert_only"] else "hard"),
    ),
    wrap=("ON", "ENDS"),
)
WEBHOOKS = Noun(
    "webhooks",
    "webhook endpoint",
    "/admin/v1/webhooks",
    (
        ("ID", lambda each: each["id"]),
        ("URL", lambda each: each["url"]),
        ("EVENTS", lambda each: ", ".join(each["events"])),
        ("CREATED", lambda each: output.when(each["created_at"])),
    ),
    wrap=("URL", "EVENTS"),
)

limits = LIMITS.group("Set, list and remove limits: requests, tokens and how many run at once.")
budgets = BUDGETS.group("Set, list and remove budgets: what may be spent.")
webhooks = WEBHOOKS.group("Make, list, try and remove webhook endpoints.")
for _group, _noun, _help in (
    (limits, LIMITS, "Remove a limit: within a second it counts no more."),
    (budgets, BUDGETS, "Remove a budget: within a second it refuses nothing more."),
    (webhooks, WEBHOOKS, "Remove an endpoint: it hears of nothing more."),
):
    nouns.add_list(_group, _noun)
    nouns.add_remove(_group, _noun, _help)

Subject = Annotated[str, typer.Argument(help="The id; for a model or a provider, its name.")]
Model = Annotated[str | None, typer.Option(help="Count only requests for this model.")]


def register(app: typer.Typer) -> None:
    app.add_typer(limits)
    app.add_typer(budgets)
    app.add_typer(webhooks)


@limits.command("set", epilog="Example: tokenworks limits set project proj_123 tokens 100000 --per minute")
def set_limit(
    scope: Annotated[Scope, typer.Argument(help="Whose requests are counted together.")],
    subject: Subject,
    kind: Annotated[Kind, typer.Argument(help="What is counted.")],
    amount: Annotated[int, typer.Argument(min=0, help="At most so many.")],
    per: Annotated[Per | None, typer.Option(help="In each window; needed for all kinds but concurrency.")] = None,
    model: Model = None,
    strict: Annotated[bool, typer.Option("--strict", help="Never exceeded by one: the worst case is held.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Set a limit, or change it. What was counted stays counted."""
    if (per is None) != (kind is Kind.CONCURRENCY):
        raise CommandFailed("give --per for every kind but concurrency, which counts this moment", USAGE)
    wish: dict[str, Any] = {"scope": scope, "subject": subject, "kind": _KINDS.get(kind, kind.value), "limit": amount}
    if per is not None:
        wish["window_seconds"] = _SECONDS[per]
    wish |= {"strict": strict} | ({"model": model} if model else {})
    made = connection.call(connection.administrator(url, key, data_dir), "post", LIMITS.path, wish)
    nouns.done(made, f"The limit {made['id']} is in force within a second.", json)


@budgets.command("set", epilog="Example: tokenworks budgets set project proj_123 25.00 --per month --alert-at 80")
def set_budget(
    scope: Annotated[Scope, typer.Argument(help="Whose spending is counted together.")],
    subject: Subject,
    usd: Annotated[str, typer.Argument(help="At most so much, in USD: 12.50.")],
    per: Annotated[Period, typer.Option(help="Of the calendar; weeks begin on Monday.")] = Period.MONTH,
    model: Model = None,
    alert_only: Annotated[bool, typer.Option("--alert-only", help="Refuse nothing; only alert.")] = False,
    alert_at: Annotated[
        list[int] | None, typer.Option(min=1, max=1000, help="Percent; may be repeated. Otherwise 50, 80, 100.")
    ] = None,
    utc_offset: Annotated[int, typer.Option(min=-840, max=840, help="Minutes: where midnight is; 120 is UTC+2.")] = 0,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Set a budget, or change it. What was spent in the period already counts."""
    wish: dict[str, Any] = {"scope": scope, "subject": subject, "limit_usd": usd, "period": per}
    wish |= {"alert_only": alert_only, "utc_offset_minutes": utc_offset} | ({"model": model} if model else {})
    if alert_at:
        wish["thresholds"] = alert_at
    made = connection.call(connection.administrator(url, key, data_dir), "post", BUDGETS.path, wish)
    state = f"{made['spent_usd']} of {made['limit_usd']} USD are spent"
    nouns.done(made, f"The budget {made['id']} is in force within a second; {state}.", json)


@webhooks.command("create", epilog="Example: tokenworks webhooks create https://example.com/hooks/tokenworks")
def create_webhook(
    target: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent: http:// or https://.")],
    event: Annotated[list[str] | None, typer.Option(help="Only this event; may be repeated.")] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Make an endpoint. The secret that verifies its signatures is shown once."""
    wish: dict[str, Any] = {"url": target, "description": description} | ({"events": event} if event else {})
    made = connection.call(connection.administrator(url, key, data_dir), "post", WEBHOOKS.path, wish)
    nouns.show_secret(made, made["secret"], f"The secret of webhook endpoint {made['id']}.", json)


@webhooks.command("test", epilog="Example: tokenworks webhooks test ID")
def try_webhook(
    id: Annotated[str, typer.Argument(help="As `webhooks list` shows it.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Send it an event of the type webhook.test."""
    path = f"{WEBHOOKS.path}/{quote(id, safe='')}/test"
    sent = connection.call(connection.administrator(url, key, data_dir), "post", path)
    nouns.done(sent, f"A test is on its way to {sent['url']}.", json)
