"""`tokenworks serve`: the options of the supervisor."""

from pathlib import Path
from typing import Annotated

import typer

from tokenworks.serve import app as server


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: tokenworks serve --model smollm2-135m --port 9000")(serve)


def serve(
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", envvar="TOKENWORKS_HOST", help="Address to listen on. [dim]\\[127.0.0.1][/dim]"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            envvar="TOKENWORKS_PORT",
            help="Port; 0 takes a free one. [dim]\\[8080][/dim]",
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", envvar="TOKENWORKS_DATA_DIR", help="Keys, database, journal, logs. [dim]\\[.data][/dim]"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            envvar="TOKENWORKS_MODEL",
            help="A model to run here, by its name in the catalog or as a source. Repeatable.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            envvar="TOKENWORKS_CONFIG",
            help="Configuration file. [dim]\\[./tokenworks.toml, if any][/dim]",
        ),
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            envvar="TOKENWORKS_CACHE_DIR",
            help="Where weights are kept. [dim]\\[~/.cache/tokenworks][/dim]",
        ),
    ] = None,
    catalog: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", envvar="TOKENWORKS_CATALOG", help="More models: a catalog file of your own. Repeatable."
        ),
    ] = None,
    verbose: Annotated[
        bool | None,
        typer.Option("--verbose", envvar="TOKENWORKS_VERBOSE", help="Show every line that the planes log."),
    ] = None,
    json: Annotated[
        bool | None,
        typer.Option("--json", envvar="TOKENWORKS_JSON", help="Print one JSON line when ready."),
    ] = None,
) -> None:
    """Run a whole provider on this machine: gateway, control, and one worker per model.

    Options win over the environment, that over the \\[serve] table of the configuration file.
    Without a model, and without a file that names some, it runs smollm2-135m.
    """
    given = {
        "host": host,
        "port": port,
        "data_dir": data_dir,
        "model": model,
        "catalog": catalog,
        "config": config,
        "cache_dir": cache_dir,
        "verbose": verbose,
        "json": json,
    }
    raise typer.Exit(server.run(given))
