"""The commands by name. Only the one that is called is imported, so that each starts quickly."""

import importlib
import sys
from typing import Annotated

import typer

from tokenworks import __version__
from tokenworks.cli.output import CommandFailed, complain

COMMANDS = {
    "serve": "serve",
    "chat": "chat",
    "status": "status",
    "models": "models",
    "keys": "keys",
    "usage": "usage",
    "billing": "billing",
    "organizations": "tenants",
    "projects": "tenants",
    "users": "people",
    "invites": "people",
    "members": "people",
    "service-accounts": "people",
    "admin-keys": "administration",
    "audit": "administration",
    "limits": "limits",
    "budgets": "limits",
    "webhooks": "limits",
    "aliases": "aliases",
    "prices": "prices",
    "providers": "providers",
    "credentials": "credentials",
    "residency": "residency",
    "guardrails": "guardrails",
    "cache": "cache",
    "files": "files",
    "batches": "batches",
    "chaos": "chaos",
    "gateway": "planes",
    "control": "planes",
    "worker": "planes",
}
"""Name -> module of this package, whose `register(app)` adds it. In the order of the help."""


def run(words: list[str]) -> None:
    app = typer.Typer(
        name="tokenworks",
        help="Be an inference provider: serve models through the APIs that clients already speak.",
        epilog="Start here: [bold]tokenworks serve[/bold], then in another terminal: [bold]tokenworks chat[/bold]",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(options)
    for module in dict.fromkeys(_needed(words)):
        importlib.import_module(f"tokenworks.cli.{module}").register(app)
    try:
        app(words)
    except CommandFailed as failure:
        complain(str(failure))
        sys.exit(failure.exit_code)


def _needed(words: list[str]) -> list[str]:
    """The module of the command that is called, or all when none is (help, or a name to be corrected)."""
    called = next((word for word in words if not word.startswith("-")), "")
    return [COMMANDS[called]] if called in COMMANDS else list(COMMANDS.values())


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"tokenworks {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Nothing but the version: every other option belongs to a command."""
