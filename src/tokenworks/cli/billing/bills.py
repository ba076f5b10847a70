"""Invoices and credit notes: look, issue, save, correct, and enter what was paid."""

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenworks.cli import output
from tokenworks.cli.billing import asking
from tokenworks.cli.billing.asking import Once, Organization, Usd
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import USAGE, CommandFailed
from tokenworks.core.price import STATED, as_read

FORMS = ("json", "csv", "pdf")


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: tokenworks billing invoice --month 2026-10 --output october.pdf")(invoice)
    app.command(epilog="Example: tokenworks billing issue 2026-10 --every")(issue)
    app.command(epilog="Example: tokenworks billing invoices --json")(invoices)
    app.command(epilog="Example: tokenworks billing credit-note INV-2026-000001 2.50 --reason 'wrong price'")(
        credit_note
    )
    app.command(epilog="Example: tokenworks billing pay INV-2026-000001 3.92 --reference 'SEPA 4711'")(pay)


def invoice(
    number: Annotated[
        str | None, typer.Argument(help="Of an invoice or credit note; otherwise that of --month.")
    ] = None,
    month: Annotated[
        str | None, typer.Option(help="As in 2026-10, in UTC; the current one otherwise.", metavar="MONTH")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Save it: .pdf, .csv or .json.")
    ] = None,
    organization: Organization = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Show or save an invoice: as it was issued, or else the draft of the month."""
    where = (url, key, data_dir)
    if number is None and month is not None:
        issued = asking.get(where, "/invoices", organization)["data"]
        number = next((each["number"] for each in issued if each["month"] == month and each["kind"] == "invoice"), None)
    path, query = f"/invoices/{number or 'draft'}", {"month": month} if month and not number else {}
    if to is not None:
        form = to.suffix.removeprefix(".")
        if form not in FORMS:
            raise CommandFailed(f"{to}: name a file that ends with .pdf, .csv or .json", USAGE)
        to.write_bytes(asking.read_bytes(where, path, organization, format=form, **query))
        return output.console.print(f"Saved as {to}.")
    found = json_module.loads(asking.read_bytes(where, path, organization, **query))
    return output.print_json(found) if json else _show(found)


def issue(
    month: Annotated[str, typer.Argument(help="As in 2026-10, in UTC; it must have ended.")],
    every: Annotated[bool, typer.Option("--every", help="Of every organization that used something.")] = False,
    organization: Organization = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Issue the invoice of a month, and of each earlier one that has none. What was issued never changes."""
    body = {"month": month, "every_organization": every}
    made = asking.post((url, key, data_dir), "/invoices", organization, body)["data"]
    if json:
        output.print_json(made)
    elif made:
        _list(made)
    else:
        output.console.print(f"Nothing was used in {month}: there is no invoice.")


def invoices(
    organization: Organization = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """List what was issued to an organization, and what is open of it."""
    found = asking.get((url, key, data_dir), "/invoices", organization)["data"]
    if json:
        output.print_json(found)
    else:
        _list(found)


def credit_note(
    number: Annotated[str, typer.Argument(help="Of the invoice.")],
    usd: Usd,
    reason: Annotated[str, typer.Option(help="Why; it is on the credit note.")],
    idempotency_key: Once = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Correct an invoice by an amount without tax."""
    body = {"amount_usd": usd, "reason": reason}
    made = asking.post((url, key, data_dir), f"/invoices/{number}/credit-notes", None, body, idempotency_key)
    output.print_json(made) if json else _list([made])


def pay(
    number: Annotated[str, typer.Argument(help="Of the invoice.")],
    usd: Usd,
    reference: Annotated[str, typer.Option(help="Of the payment, as on the bank's statement.")],
    idempotency_key: Once = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Enter money that came in for an invoice."""
    body = {"amount_usd": usd, "reference": reference}
    paid = asking.post((url, key, data_dir), f"/invoices/{number}/payments", None, body, idempotency_key)
    if json:
        output.print_json(paid)
    else:
        output.console.print(f"{number}: {paid['open']['usd']} USD are open.")


def _list(found: list[dict[str, Any]]) -> None:
    rows = [
        (each["number"], each["organization_id"], each["month"], each["total"]["usd"], each["due"]["usd"],
         each["open"]["usd"], each["corrects"] or "") for each in found
    ]  # fmt: skip
    columns = ("NUMBER", "ORGANIZATION", "MONTH", "TOTAL USD", "DUE USD", "OPEN USD", "CORRECTS")
    output.print_table(columns, rows, right=("TOTAL USD", "DUE USD", "OPEN USD"))


_NAMES = {kind: name for name, (kind, _) in STATED.items()}
"""Kinds as prices state them: seconds, not milliseconds."""


def _read(line: dict[str, Any]) -> tuple[str, str, str]:
    """Kind, quantity and rate."""
    kind, told = line["kind"], line["usd_per_million"]
    quantity, rate = as_read(kind, line["quantity"], told or "0")
    return _NAMES.get(kind, kind), quantity, rate if told else "various"


def _show(found: dict[str, Any]) -> None:
    if found["object"] == "credit_note":
        output.console.print(f"{found['number']} corrects {found['corrects']}: {found['reason']}")
        sums = [("CREDITED", found["net"]), ("TAX", found["tax"]), ("TOTAL", found["total"])]
        return output.print_table(("USD", ""), [(name, amount["usd"]) for name, amount in sums], right=("",))
    rows = [
        (line["project"] or line["project_id"], line["key"] or line["key_id"], line["model"], *_read(line),
         line["amount_usd"]) for line in found["lines"]
    ]  # fmt: skip
    columns = ("PROJECT", "KEY", "MODEL", "KIND", "QUANTITY", "RATE USD", "USD")
    output.print_table(columns, rows, right=("QUANTITY", "RATE USD", "USD"), wrap=("PROJECT", "KEY", "MODEL"))
    rate = found["tax"]["basis_points"] / 100
    output.note(
        f"\n{found['number'] or 'Draft'} for {found['month']}: charges {found['charged']['usd']}, refunds "
        f"{found['refunded']['usd']}, tax of {rate:g} % {found['tax']['usd']}, total {found['total']['usd']}, "
        f"due {found['due']['usd']} USD"
    )
    return None
