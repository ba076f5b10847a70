"""Receipts and their signatures, and a provider's bill beside our own usage."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.text import Text

from tokenworks import receipts
from tokenworks.cli import connection, output
from tokenworks.cli.billing import asking
from tokenworks.cli.connection import ADMIN_PREFIX, DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import FAILED, USAGE, CommandFailed

DRIFTS = 3
"""The exit code of `reconcile` when both sides differ."""
KEYS_PATH = "/v1/receipts/keys"


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: tokenworks billing receipt req_0f3c --json > receipt.json")(receipt)
    app.command(epilog="Example: tokenworks billing verify receipt.json --keys keys.json")(verify)
    app.command(epilog="Example: tokenworks billing reconcile usage.json costs.json --provider openai")(reconcile)


def receipt(
    request_id: Annotated[str, typer.Argument(help="The x-request-id of the answer.")],
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Show what a request took and cost, with an API key or an admin key; its signature is checked."""
    own = key and not key.startswith(ADMIN_PREFIX)
    client = connection.caller(url, key, data_dir) if own else connection.administrator(url, key, data_dir)
    found = connection.call(client, "get", f"/v1/receipts/{quote(request_id, safe='')}")
    signer = _checked(found, _keys(url, None))
    if json:
        return output.print_json(found)
    rows = [_row(each) for each in found["attempts"]]
    columns = ("NO", "UPSTREAM", "OUTCOME", "USAGE", "PRICE", "USD", "PAID BY")
    output.print_table(columns, rows, right=("NO", "USD"), wrap=("UPSTREAM", "OUTCOME", "USAGE", "PRICE"))
    output.note(
        f"\n{request_id} ({found['model']}): {found['charge']['usd']} USD, {found['refunded']['usd']} USD given back; "
        f"signed by {signer}"
    )
    return None


def verify(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A receipt as JSON.")],
    keys: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A saved key set; otherwise the server's.")
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Check that a receipt is what the provider signed."""
    try:
        document = json_module.loads(file.read_bytes())
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise CommandFailed(f"{file} is no JSON object", USAGE)
    signer = _checked(document, _keys(url, keys))
    output.console.print(f"{file} is what {signer} signed.", soft_wrap=True)


def reconcile(
    exports: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help="Exports of usage or costs: JSON pages or CSV.")
    ],
    provider: Annotated[str, typer.Option(help="Its name in our own usage.")],
    provider_key: Annotated[
        list[str] | None,
        typer.Option(metavar="THEIRS=OURS", help="Which upstream of ours a key id of theirs is; may be repeated."),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="The share that may be missing, as 0.01.")] = 0.0,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Compare a provider's export with our usage by day, model and key; exit code 3 when they differ."""
    pairs = [each.partition("=") for each in provider_key or ()]
    if wrong := next((each for each in pairs if not all(each)), None):
        raise CommandFailed(f"--provider-key {''.join(wrong)}: write THEIRS=OURS", USAGE)
    body = {
        "provider": provider,
        "exports": [path.read_text(errors="replace") for path in exports],
        "keys": {theirs: ours for theirs, _, ours in pairs},
        "tolerance": tolerance,
    }
    found = asking.post((url, key, data_dir), "/reconciliations", None, body)
    if json:
        output.print_json(found)
    else:
        _show_drift(found)
    if found["drifting"]:
        raise typer.Exit(DRIFTS)


def _show_drift(found: dict[str, Any]) -> None:
    rows = [
        (each["day"], each["model"], each["key"], name, each["ours"][name], each["theirs"][name], _signed(drift))
        for each in found["data"] if each["exceeds"]
        for name, drift in each["drift"].items() if drift
    ]  # fmt: skip
    if rows:
        columns = ("DAY", "MODEL", "KEY", "MEASURE", "OURS", "THEIRS", "DRIFT")
        output.print_table(columns, rows, right=("OURS", "THEIRS", "DRIFT"), wrap=("MODEL", "KEY"))
    for each in found["data"]:
        if each["requests"]:
            output.note(f"\n{each['day']} {each['model']} {each['key']}".rstrip() + ", requests of ours behind it:")
            behind = [
                (one["request_id"], one["attempt"], one["measures"]["cost"], one["why"]) for one in each["requests"]
            ]
            output.print_table(("REQUEST", "NO", "COST", "WHY"), behind, right=("NO", "COST"), wrap=("WHY",))
            if each["more_requests"]:
                output.note(f"and {each['more_requests']} more")
    output.note(
        f"\n{found['provider']}, {found['first_day']} to {found['last_day']}: {len(found['data'])} rows, "
        f"{found['drifting']} of them differ. Costs are in nano-dollars."
    )


def _signed(drift: int) -> Text:
    return Text(f"{drift:+}", style="red")


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    took = ", ".join(f"{kind} {count}" for kind, count in each["usage"].items())
    outcome = " ".join(filter(None, (each["outcome"], each["error"])))
    return each["attempt"], each["upstream"], outcome, took, each["price"] or "", each["charge"]["usd"], each["paid_by"]


def _keys(url: str, saved: Path | None) -> dict[str, Any]:
    if saved is None:
        found: dict[str, Any] = connection.call(connection.anonymous(url), "get", KEYS_PATH)
        return found
    try:
        loaded: dict[str, Any] = json_module.loads(saved.read_bytes())
        loaded["keys"][0]["x"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise CommandFailed(f"{saved} is no key set such as {KEYS_PATH} answers", USAGE) from error
    return loaded


def _checked(document: dict[str, Any], keys: dict[str, Any]) -> str:
    try:
        return receipts.verify(document, keys)
    except receipts.NotSigned as error:
        raise CommandFailed(f"this receipt is not to be trusted: {error}", FAILED) from error
