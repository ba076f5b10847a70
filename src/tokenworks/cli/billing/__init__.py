"""`tokenworks billing`: balances, invoices, receipts, and providers' bills beside our own."""

import typer

from tokenworks.cli.billing import bills, book, proof


def register(app: typer.Typer) -> None:
    billing = typer.Typer(
        name="billing",
        no_args_is_help=True,
        help="Balances, invoices, receipts, and providers' bills beside our own.",
        rich_markup_mode="rich",
    )
    for part in (book, bills, proof):
        part.register(billing)
    app.add_typer(billing)
