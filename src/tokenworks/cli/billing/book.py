"""The book of an organization: its balance, its transactions, and what the operator puts onto it and takes from it."""

from typing import Annotated, Any

import typer

from tokenworks.cli import output
from tokenworks.cli.billing import asking
from tokenworks.cli.billing.asking import Once, Organization, Usd
from tokenworks.cli.connection import DEFAULT_DATA_DIR, DEFAULT_URL, AsJson, DataDir, Key, Url
from tokenworks.cli.output import FAILED, CommandFailed

PAGE = 1000


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: tokenworks billing balance --organization org_0f3c")(balance)
    app.command(epilog="Example: tokenworks billing grant 5 --memo welcome")(grant)
    app.command(epilog="Example: tokenworks billing topup 100 --reference 'SEPA 4711'")(topup)
    app.command(epilog="Example: tokenworks billing refund req_0f3c --reason 'a wrong answer'")(refund)
    app.command(epilog="Example: tokenworks billing adjust --memo 'typo in a grant' -- -0.50")(adjust)
    app.command(epilog="Example: tokenworks billing terms --mode prepaid --tax 19")(terms)
    app.command(epilog="Example: tokenworks billing transactions --kind grant --limit 5")(transactions)
    app.command(epilog="Example: tokenworks billing check --json")(check)


def balance(
    organization: Organization = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Show what an organization has, owes and has used."""
    found = asking.get((url, key, data_dir), "/balance", organization)
    if json:
        return output.print_json(found)
    names = {"balance": "BALANCE", "held": "HELD", "spendable": "SPENDABLE", "receivable": "INVOICED AND OPEN",
             "charged": "USED EVER"}  # fmt: skip
    rows = [(shown, found[name]["usd"]) for name, shown in names.items()]
    output.print_table(("USD", ""), rows, right=("",))
    output.note(f"\n{found['organization_id']}, {found['mode']}")
    return None


def grant(
    usd: Usd,
    memo: Annotated[str, typer.Option(help="Why; the customer sees it.")],
    organization: Organization = None,
    idempotency_key: Once = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Give credit that nobody paid for."""
    body = {"amount_usd": usd, "memo": memo}
    _posted(asking.post((url, key, data_dir), "/grants", organization, body, idempotency_key), json)


def topup(
    usd: Usd,
    reference: Annotated[str, typer.Option(help="Of the payment, as on the bank's statement.")],
    organization: Organization = None,
    idempotency_key: Once = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Enter money that came in for the balance."""
    body = {"amount_usd": usd, "reference": reference}
    _posted(asking.post((url, key, data_dir), "/topups", organization, body, idempotency_key), json)


def refund(
    request_id: Annotated[str, typer.Argument(help="The request, by the x-request-id of its answer.")],
    reason: Annotated[str, typer.Option(help="Why; the customer sees it.")],
    usd: Annotated[str | None, typer.Option(help="A part of its charge; otherwise all that is left.")] = None,
    organization: Organization = None,
    idempotency_key: Once = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Give a request's charge back; when its month was invoiced, with a credit note."""
    body = {"request_id": request_id, "reason": reason, **({"amount_usd": usd} if usd else {})}
    _posted(asking.post((url, key, data_dir), "/refunds", organization, body, idempotency_key), json)


def adjust(
    usd: Usd,
    memo: Annotated[str, typer.Option(help="Why; the customer sees it.")],
    organization: Organization = None,
    idempotency_key: Once = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Correct a balance: more when positive, less when negative (write -- before it)."""
    body = {"amount_usd": usd, "memo": memo}
    _posted(asking.post((url, key, data_dir), "/adjustments", organization, body, idempotency_key), json)


def terms(
    mode: Annotated[str | None, typer.Option(help="prepaid (the balance is a hard budget) or postpaid.")] = None,
    tax: Annotated[float | None, typer.Option(min=0, max=100, help="Per cent, with two decimal places.")] = None,
    organization: Organization = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """Say how an organization pays; without options, show it."""
    where = (url, key, data_dir)
    body: dict[str, Any] = {} if mode is None else {"mode": mode}
    if tax is not None:
        body["tax_basis_points"] = round(tax * 100)
    found = asking.post(where, "/terms", organization, body) if body else asking.get(where, "/profile", organization)
    if json:
        output.print_json(found)
    else:
        rate = found["tax_basis_points"] / 100
        output.console.print(f"{found['organization_id']} is {found['mode']}, at {rate:g} % tax.")


def transactions(
    organization: Organization = None,
    kind: Annotated[str | None, typer.Option(help="Only these: charge, grant, topup, invoice and so on.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=PAGE, help="How many, newest first.")] = 20,
    url: Url = DEFAULT_URL,
    key: Key = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    json: AsJson = False,
) -> None:
    """List the transactions of a book, newest first; USD is what each did to the balance."""
    page = asking.get((url, key, data_dir), "/transactions", organization, kind=kind, limit=limit)
    if json:
        return output.print_json(page["data"])
    columns = ("NO", "TIME", "KIND", "USD", "MODEL", "REQUESTS", "ABOUT")
    output.print_table(columns, map(_row, page["data"]), right=("NO", "USD", "REQUESTS"), wrap=("MODEL", "ABOUT"))
    if page["has_more"]:
        output.note("\nThere are older ones: see --limit and --kind.")
    return None


def check(url: Url = DEFAULT_URL, key: Key = None, data_dir: DataDir = DEFAULT_DATA_DIR, json: AsJson = False) -> None:
    """Add up every entry of every book and all usage, and compare; exit code 1 when something differs."""
    found = asking.get((url, key, data_dir), "/check", None)
    if json:
        output.print_json(found)
    elif not found["differences"]:
        output.console.print(
            f"{found['transactions']} transactions in {found['organizations']} books: every balance is the sum of its "
            "entries, and every charge is in the usage."
        )
    if found["differences"]:
        raise CommandFailed("; ".join(found["differences"]), FAILED)


def _posted(made: dict[str, Any], json: bool) -> None:
    if json:
        return output.print_json(made)
    note = f", with {made['credit_note']}" if made.get("credit_note") else ""
    again = "" if made["new"] else " (it had been done before)"
    kind = made["kind"].replace("_", " ")
    output.console.print(f"No {made['sequence']}: {kind} of {made['amount']['usd']} USD{note}{again}.")
    output.note(f"The balance of {made['organization_id']} is {made['balance']['usd']} USD.")
    return None


def _row(each: dict[str, Any]) -> tuple[object, ...]:
    about = " ".join(filter(None, (each["reference"], each["memo"])))
    attempts = "" if each["attempts"] is None else each["attempts"]
    when, kind = output.when(each["at"]), each["kind"].replace("_", " ")
    return each["sequence"], when, kind, each["amount"]["usd"], each["model"] or "", attempts, about
