"""The three planes in the list of commands. `cli.main` runs them before this is ever called."""

import typer

HELP = {
    "gateway": "Run the data plane alone: the port that callers reach.",
    "control": "Run the control plane alone: keys, models, usage.",
    "worker": "Run one engine with one set of weights.",
}


def register(app: typer.Typer) -> None:
    for name, text in HELP.items():
        app.command(name, help=text, rich_help_panel="Planes, for more than one machine")(_elsewhere)


def _elsewhere() -> None:
    raise typer.BadParameter("give the name of the plane first, its options after it")
