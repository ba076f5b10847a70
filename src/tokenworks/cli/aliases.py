"""`tokenworks aliases`: virtual models, their versions, and what a version would do before it is in force."""

import json as jsonlib
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks.cli import aliases_toml, connection, nouns, output
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import USAGE, CommandFailed
from tokenworks.client import Client

PATH = "/admin/v1/aliases"

aliases = typer.Typer(no_args_is_help=True, help="Virtual models: names for other models.", rich_markup_mode="rich")

Name = Annotated[str, typer.Argument(help="The virtual model.")]
File = Annotated[
    Path | None,
    typer.Argument(help="TOML as in the configuration file, or JSON; - reads it from standard input.", allow_dash=True),
]
To = Annotated[
    list[str] | None, typer.Option(metavar="MODEL[=WEIGHT]", help="Who answers; may be repeated with weights.")
]
Canary = Annotated[str | None, typer.Option(metavar="MODEL=PERCENT", help="Who takes a share of it, or none.")]
Shadow = Annotated[str | None, typer.Option(metavar="MODEL=PERCENT", help="Who gets copies, or none.")]
Sticky = Annotated[
    str | None, typer.Option(help="What stays with one model: session, user, key, project, request, metadata.NAME.")
]


def register(app: typer.Typer) -> None:
    app.add_typer(aliases, name="aliases")


@aliases.command("list", epilog="Example: tokenworks aliases list")
def list_aliases(
    url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False
) -> None:
    """Those that are in force."""
    found = connection.call(connection.administrator(url, key, data_dir), "get", PATH)["data"]
    if json:
        output.print_json(found)
        return
    rows = [
        (each["name"], each["version"], *_summary(each["definition"]), output.when(each["created_at"]), each["author"])
        for each in found
    ]
    output.print_table(("NAME", "VERSION", "TO", "CANARY", "SHADOW", "RULES", "SINCE", "BY"), rows, wrap=("TO", "BY"))


@aliases.command(epilog="Example: tokenworks aliases show chat --version 3")
def show(
    name: Name,
    version: Annotated[int | None, typer.Option(help="An earlier one.", min=1)] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """One version, as a configuration file has it; `aliases set` takes it back."""
    path = _path(name) if version is None else f"{_path(name)}/versions/{version}"
    _print(connection.call(connection.administrator(url, key, data_dir), "get", path), json)


@aliases.command(
    "set",
    epilog="Examples: tokenworks aliases set chat --to fast=9 --to smart=1 | "
    "tokenworks aliases set chat --canary new=10 | tokenworks aliases set chat chat.toml",
)
def set_alias(
    name: Name,
    file: File = None,
    to: To = None,
    canary: Canary = None,
    shadow: Shadow = None,
    sticky: Sticky = None,
    note: Annotated[str, typer.Option(help="Why, for those who read the history.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Put a new version in force: what the file says, or the version in force with what the options change."""
    client = nouns.admin(url, key, data_dir)
    current = _current(client(), name)
    changes = {"to": to, "canary": canary, "shadow": shadow, "sticky": sticky}
    definition = _wanted(name, file, changes, current)
    wish = {"definition": definition, "note": note, "expected_version": current["version"] if current else 0}
    _print(connection.call(client(), "post", _path(name), wish), json)


@aliases.command(epilog="Example: tokenworks aliases history chat")
def history(
    name: Name,
    limit: nouns.Most = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Every version, newest first: who made it, when and why."""
    found = nouns.pages(connection.administrator(url, key, data_dir), f"{_path(name)}/versions", limit)
    if json:
        output.print_json(found)
        return
    rows = [
        (each["version"], *_summary(each["definition"]), output.when(each["created_at"]), each["author"], each["note"])
        for each in found
    ]
    columns = ("VERSION", "TO", "CANARY", "SHADOW", "RULES", "SINCE", "BY", "NOTE")
    output.print_table(columns, rows, wrap=("TO", "BY", "NOTE"))


@aliases.command(epilog="Example: tokenworks aliases rollback chat 3")
def rollback(
    name: Name,
    version: Annotated[int, typer.Argument(help="As `aliases history` shows it.", min=1)],
    note: Annotated[str, typer.Option(help="Why.")] = "",
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Put in force again, as a new version, what an earlier one said."""
    wish = {"version": version, "note": note}
    _print(connection.call(connection.administrator(url, key, data_dir), "post", f"{_path(name)}/rollback", wish), json)


@aliases.command(epilog="Example: tokenworks aliases remove chat")
def remove(
    name: Name,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """From now on there is no such alias. Its versions stay, to be rolled back to."""
    gone = connection.call(connection.administrator(url, key, data_dir), "delete", _path(name))
    before = gone["version"] - 1
    nouns.done(gone, f"{name} is removed; `tokenworks aliases rollback {name} {before}` brings it back.", json)


@aliases.command(
    "try",
    epilog="Example: tokenworks aliases try chat --canary new=10 --recent 1000 | "
    "tokenworks aliases try chat chat.toml --request body.json --metadata tier=gold",
)
def try_out(
    name: Name,
    file: File = None,
    to: To = None,
    canary: Canary = None,
    shadow: Shadow = None,
    sticky: Sticky = None,
    version: Annotated[int | None, typer.Option(help="An earlier version instead.", min=1)] = None,
    request: Annotated[Path | None, typer.Option(help="A file with a request's body, JSON.")] = None,
    protocol: Annotated[str | None, typer.Option(help="What that is written in; OpenAI's chat when left out.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    api_key: Annotated[str | None, typer.Option("--of", metavar="KEY_ID", help="Whose request it is.")] = None,
    recent: Annotated[int, typer.Option(help="So many of the last requests, too.", min=0, max=10_000)] = 0,
    of_model: Annotated[str | None, typer.Option(help="Recent requests for this model, not the alias's own.")] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """What a version would do, beside the one in force. Nothing is changed and nobody is asked."""
    client = nouns.admin(url, key, data_dir)
    changes = {"to": to, "canary": canary, "shadow": shadow, "sticky": sticky}
    wish: dict[str, Any] = {"recent": recent}
    if file is not None or any(value is not None for value in changes.values()):
        wish["definition"] = _wanted(name, file, changes, _current(client(), name))
    optional = {"version": version, "protocol": protocol, "key_id": api_key, "of_model": of_model}
    wish |= {member: value for member, value in optional.items() if value is not None}
    if request is not None:
        wish["request"] = _read(request, toml=False)
    if metadata:
        wish["metadata"] = dict(_pair(text, "--metadata") for text in metadata)
    told = connection.call(client(), "post", f"{_path(name)}/try", wish)
    if json:
        output.print_json(told)
    else:
        _print_trial(told)


def _path(name: str) -> str:
    return f"{PATH}/{quote(name, safe='/')}"


def _current(client: Client, name: str) -> dict[str, Any] | None:
    found = connection.call(client, "get", PATH)["data"]
    return next((each for each in found if each["name"] == name), None)


def _wanted(name: str, file: Path | None, changes: dict[str, Any], current: dict[str, Any] | None) -> dict[str, Any]:
    if file is not None:
        if any(value is not None for value in changes.values()):
            raise CommandFailed("give either a file or options that change the version in force", USAGE)
        return aliases_toml.table_of(_read(file), name)
    definition = dict(current["definition"]) if current is not None else {}
    if changes["to"]:
        definition["to"] = _weights(changes["to"])
    if changes["sticky"]:
        definition["sticky"] = changes["sticky"]
    for member in ("canary", "shadow"):
        text = changes[member]
        if text == "none":
            definition.pop(member, None)
        elif text is not None:
            model, percent = _pair(text, f"--{member}")
            definition[member] = {**definition.get(member, {}), "to": model, "percent": _number(percent, member)}
    if not definition:
        raise CommandFailed("what is it to be? Give --to MODEL, or a file", USAGE)
    return definition


def _weights(texts: list[str]) -> str | dict[str, int]:
    if len(texts) == 1 and "=" not in texts[0]:
        return texts[0]
    pairs = [_pair(text, "--to") for text in texts]
    if wrong := next((text for text, (_, weight) in zip(texts, pairs, strict=True) if not weight.isdigit()), None):
        raise CommandFailed(f"--to {wrong}: write MODEL=WEIGHT with a whole number", USAGE)
    return {model: int(weight) for model, weight in pairs}


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise CommandFailed(f"{option} {text}: write NAME=VALUE", USAGE)
    return name, value


def _number(text: str, member: str) -> float:
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        raise CommandFailed(f"--{member}: {text!r} is no percentage", USAGE) from None
    return int(number) if number.is_integer() else number


def _read(file: Path, *, toml: bool = True) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found = tomllib.loads(text) if toml and not text.lstrip().startswith("{") else jsonlib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"cannot read {file}: {error}", USAGE) from error
    except ValueError as error:
        raise CommandFailed(f"{file} is neither TOML nor JSON: {error}", USAGE) from error
    if not isinstance(found, dict):
        raise CommandFailed(f"{file} holds no table", USAGE)
    return found


def _summary(definition: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if definition is None:
        return "(removed)", "", "", ""
    to = definition["to"]
    weights = to if isinstance(to, str) else ", ".join(f"{name}={weight}" for name, weight in to.items())
    shares = [definition.get(member) for member in ("canary", "shadow")]
    canary, shadow = (f"{share['to']} {share['percent']:g} %" if share else "–" for share in shares)
    return weights, canary, shadow, str(len(definition.get("rules", ())) or "–")


def _print(version: dict[str, Any], json: bool) -> None:
    if json:
        output.print_json(version)
        return
    note = f": {version['note']}" if version["note"] else ""
    made = f"version {version['version']}, {output.when(version['created_at'])}, by {version['author']}{note}"
    if version["definition"] is None:
        output.console.print(Text(f"# {made}\n# removed"), soft_wrap=True)
    else:
        text = aliases_toml.text_of(version["name"], version["definition"])
        output.console.print(Text(f"# {made}\n{text}"), soft_wrap=True)


def _print_trial(told: dict[str, Any]) -> None:
    now = f"version {told['current_version']}" if told["current_version"] else "nothing yet"
    what = f"version {told['version']}" if told["version"] else "the proposal"
    output.console.print(Text(f"{told['name']}: {what} beside {now}"), soft_wrap=True)
    rows = [(label, *_fate(told[member])) for label, member in (("now", "sample_now"), ("then", "sample"))]
    output.print_table(("A REQUEST", "GOES TO", "BY", "COPY TO", "PRICE USD", "REFUSED"), rows, wrap=("REFUSED",))
    shares = ", ".join(f"{model} {share:.1%}" for model, share in told["shares"].items())
    output.console.print(Text(f"of many such conversations: {shares}"), soft_wrap=True)
    if (recent := told["recent"]) is not None:
        _print_recent(recent)


def _fate(sample: dict[str, Any] | None) -> tuple[str, ...]:
    if sample is None:
        return "–", "", "", "", ""
    steps = sample["steps"]
    by = " > ".join(step["alias"] + (f" ({step['rule']})" if step["rule"] else "") for step in steps)
    return sample["model"], by, sample["shadow"] or "–", sample["price_usd"] or "–", sample["refused"] or "–"


def _print_recent(recent: dict[str, Any]) -> None:
    current, proposed = recent["current"], recent["proposed"]
    before = current["requests"] if current else {}
    names = dict.fromkeys((*before, *proposed["requests"]))
    rows: list[tuple[object, ...]] = [(name, before.get(name, 0), proposed["requests"].get(name, 0)) for name in names]
    rows.append(("USD at the prices of now", current["price_usd"] if current else "–", proposed["price_usd"]))
    output.print_table((f"THE LAST {recent['requests']}", "NOW", "THEN"), rows, right=("NOW", "THEN"))
    for move in recent["moves"]:
        output.console.print(Text(f"{move['requests']} would go from {move['from']} to {move['to']}"))
    for each in proposed["refused"]:
        output.console.print(
            Text(f"{each['requests']} would be refused: {each['model']} {each['reason']}"), soft_wrap=True
        )
    if recent["guessed"]:
        output.note(f"{recent['guessed']} of them are guessed: usage keeps no metadata and no users.")
