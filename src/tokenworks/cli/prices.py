"""`tokenworks prices`: the price book: what is charged, what is paid, since when and for whom."""

import json as jsonlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks.cli import connection, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import USAGE, CommandFailed

PATH = "/admin/v1/prices"

prices = typer.Typer(
    no_args_is_help=True, help="The price book: what is charged and what is paid.", rich_markup_mode="rich"
)

Cost = Annotated[bool, typer.Option("--cost", help="What we pay for provider/model, instead of what we charge.")]
From = Annotated[str | None, typer.Option("--from", metavar="WHEN", help="2027-01-31, 2027-01-31T12:00 (UTC); now.")]


def register(app: typer.Typer) -> None:
    app.add_typer(prices, name="prices")


@prices.command("list", epilog="Example: tokenworks prices list --json")
def list_prices(
    cost: Cost = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """What is in force, and what is to come."""
    query = {"side": "cost"} if cost else {}
    _show(connection.call(connection.administrator(url, key, data_dir), "get", PATH, query)["data"], json)


@prices.command(epilog="Example: tokenworks prices history smollm2-135m")
def history(
    subject: Annotated[str, typer.Argument(help="A model, or provider/model with --cost.")],
    cost: Cost = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Every version of one price, also those that are past."""
    query = {"side": "cost" if cost else "price", "subject": subject, "history": "true"}
    _show(connection.call(connection.administrator(url, key, data_dir), "get", PATH, query)["data"], json)


@prices.command(
    "set",
    epilog="Examples: tokenworks prices set assistant input=2 output=10 --when tier=batch:0.5 "
    "--when above=272000:input=2,output=1.5 | tokenworks prices set --cost groq/llama input=0.05 output=0.08",
)
def set_price(
    subject: Annotated[str, typer.Argument(help="A model, or provider/model with --cost.")],
    rates: Annotated[
        list[str], typer.Argument(metavar="KIND=USD...", help="Per million tokens, request, image or second.")
    ],
    when: Annotated[
        list[str] | None,
        typer.Option(
            help="Conditions (tier=, above=, region=, joined by +), a colon, and a factor or KIND=FACTOR,...",
            metavar="CONDITIONS:FACTORS",
        ),
    ] = None,
    starts: From = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Then the earlier one goes on.")] = None,
    organization: Annotated[str | None, typer.Option(help="Only for this organization's requests.")] = None,
    project: Annotated[str | None, typer.Option(help="Only for this project's requests.")] = None,
    cost: Cost = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Set a price from a moment on. What was charged before stands."""
    wish: dict[str, Any] = {
        "side": "cost" if cost else "price",
        "subject": subject,
        "rates": _pairs(",".join(rates)),
        "when": [_when(text) for text in when or ()],
    }
    optional: dict[str, Any] = {"from": _moment(starts), "until": _moment(until)}
    optional |= {"organization_id": organization, "project_id": project}
    wish |= {name: value for name, value in optional.items() if value is not None}
    made = connection.call(connection.administrator(url, key, data_dir), "post", PATH, wish)
    _show([made], json)


@prices.command(epilog="Example: tokenworks prices end price_0f3b...")
def end(
    id: Annotated[str, typer.Argument(help="The version's id, as `prices list` shows it.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """End a version that is in force, or take back one that is to come."""
    path = f"{PATH}/{quote(id, safe='')}"
    answer = connection.call(connection.administrator(url, key, data_dir), "delete", path)
    if json:
        output.print_json(answer)
    else:
        output.console.print(f"{id} is {'taken back' if answer['state'] == 'scheduled' else 'ended'}.")


@prices.command(
    "import",
    epilog="Examples: tokenworks prices import prices.json --dry-run | "
    "tokenworks prices import prices.json --price --name gpt-5.5=assistant",
)
def import_file(
    file: Annotated[Path, typer.Argument(help="A price file in litellm's format.", exists=True, dir_okay=False)],
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="THEIRS=OURS", help="Take this entry of the file for this model or provider/model."),
    ] = None,
    price: Annotated[bool, typer.Option("--price", help="As what we charge, instead of what we pay.")] = False,
    starts: From = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Take prices from a file: all or nothing. Without --name: costs of every target that the file knows."""
    try:
        document = jsonlib.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file}: {error}; no price was changed", USAGE) from error
    names = dict(_split(text, "=", "THEIRS=OURS") for text in name) if name else None
    wish = {"document": document, "side": "price" if price else "cost", "names": names, "from": _moment(starts)}
    wish |= {"dry_run": dry_run, "source": f"file {file.name}"[:200]}
    done = connection.call(connection.administrator(url, key, data_dir), "post", f"{PATH}/import", wish)
    if json:
        output.print_json(done)
        return
    if done["set"]:
        _show(done["set"], json=False)
    elif not (done["unchanged"] or done["missing"] or done["problems"]):
        output.note("The file knows no target of yours; say which entry is for what with --name THEIRS=OURS.")
    for subject in done["unchanged"]:
        output.note(f"{subject}: unchanged")
    for subject in done["missing"]:
        output.note(f"{subject}: not in the file, or without a usable price")
    for theirs, problem in done["problems"].items():
        output.note(f"{theirs} of the file: {problem}")
    for theirs, unknown in done["not_understood"].items():
        output.note(f"{theirs} of the file: not understood, and left out: {', '.join(unknown)}")
    if dry_run:
        output.note("Nothing was changed: this was a dry run.")


@prices.command(epilog="Example: tokenworks prices check")
def check(url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False) -> None:
    """What should be looked at: prices that are missing or end, costs unknown, sales below cost. Exit code 1 if any."""
    found = connection.call(connection.administrator(url, key, data_dir), "get", f"{PATH}/check")["data"]
    if json:
        output.print_json(found)
    elif not found:
        output.console.print("Every model has its price, every target its cost.")
    else:
        rows = [(each["severity"], each["subject"], each["message"], output.when(each["at"])) for each in found]
        output.print_table(("", "SUBJECT", "WHAT", "FROM"), rows, wrap=("SUBJECT", "WHAT"))
    if any(each["severity"] == "error" for each in found):
        raise typer.Exit(1)


def _show(entries: list[dict[str, Any]], json: bool) -> None:
    if json:
        output.print_json(entries)
        return
    columns = ("ID", "FOR", "USD", "UNDER CONDITIONS", "FROM", "UNTIL", "SOURCE")
    output.print_table(columns, map(_row, entries), wrap=("FOR", "USD", "UNDER CONDITIONS", "SOURCE"))


def _row(entry: dict[str, Any]) -> tuple[object, ...]:
    owner = entry["project_id"] or entry["organization_id"]
    subject = entry["subject"] + (f" ({owner})" if owner else "")
    rates = ", ".join(f"{kind} {usd}" for kind, usd in entry["rates"].items())
    style = {"past": "dim", "scheduled": "yellow", "in_force": ""}[entry["state"]]
    conditions = "; ".join(_condition(each) for each in entry["when"])
    return (
        entry["id"],
        Text(subject, style=style),
        rates,
        conditions,
        output.when(entry["from"]),
        output.when(entry["until"]),
        entry["source"],
    )


def _condition(when: dict[str, Any]) -> str:
    named = [f"{name} {when[name]}" for name in ("tier", "above", "region") if when[name] is not None]
    factors = set(when["factors"].values())
    if len(factors) == 1:
        return f"{' + '.join(named)}: x{factors.pop()}"
    return f"{' + '.join(named)}: " + ", ".join(f"{kind} x{factor}" for kind, factor in when["factors"].items())


def _when(text: str) -> dict[str, Any]:
    conditions, factors = _split(text, ":", "tier=batch:0.5")
    when: dict[str, Any] = {}
    for condition in conditions.split("+"):
        name, value = _split(condition, "=", "tier=batch:0.5")
        if name not in ("tier", "above", "region"):
            raise CommandFailed(f"--when {text!r}: {name!r} is no condition; use tier, above or region", USAGE)
        if name == "above" and not value.isdecimal():
            raise CommandFailed(f"--when {text!r}: 'above' is a number of tokens", USAGE)
        when[name] = int(value) if name == "above" else value
    return {**when, "factors": _pairs(factors) if "=" in factors else factors}


def _pairs(text: str) -> dict[str, str]:
    return dict(_split(pair, "=", "input=0.15") for pair in text.split(","))


def _split(text: str, at: str, example: str) -> tuple[str, str]:
    left, found, right = text.rpartition(at) if at == "=" else text.partition(at)
    if not found or not left or not right:
        raise CommandFailed(f"{text!r} cannot be read; write it as in {example}", USAGE)
    return left, right


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"{text!r} is no date; write 2027-01-31 or 2027-01-31T12:00 (UTC)", USAGE) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
