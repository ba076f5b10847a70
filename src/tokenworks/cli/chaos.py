"""`tokenworks chaos`: a provider that fails on purpose, and the scorecard of one's own configuration in front of it."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tokenworks.chaos.cases import FAULTS, Case, cases
from tokenworks.chaos.judging import ANSWERED, CLEAN, RESCUED, VIOLATION
from tokenworks.chaos.run import CannotRun, Result, run
from tokenworks.chaos.server import ChaosServer
from tokenworks.cli import output
from tokenworks.cli.connection import AsJson
from tokenworks.config import ConfigError, Configuration, load
from tokenworks.config.catalog import known_providers
from tokenworks.protocols import PROTOCOLS

STYLES = {ANSWERED: "green", RESCUED: "green", CLEAN: "yellow", VIOLATION: "bold red"}
WORST = (VIOLATION, CLEAN, RESCUED, ANSWERED)

chaos = typer.Typer(no_args_is_help=True, help="Upstreams that fail on purpose.", rich_markup_mode="rich")


def register(app: typer.Typer) -> None:
    app.add_typer(chaos, name="chaos")


@chaos.command(epilog="Example: tokenworks chaos serve --port 9900")
def serve(
    host: Annotated[str, typer.Option(metavar="HOST", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port; 0 takes a free one.")] = 9900,
    pace: Annotated[float, typer.Option(min=0.0, help="Seconds between the words of a stream.")] = 0.02,
) -> None:
    """Answer in every protocol, with the fault that the model's name asks for, until it is stopped."""

    async def forever() -> None:
        server = ChaosServer(pace=pace)
        taken = await server.start(host, port)
        output.console.print(f"http://{host}:{taken}/v1")
        output.note("Models: " + ", ".join(FAULTS))
        await asyncio.Event().wait()

    try:
        asyncio.run(forever())
    except OSError as error:
        raise output.CommandFailed(f"cannot listen on {host} port {port}: {error.strerror}; choose another") from error
    except KeyboardInterrupt:
        raise typer.Exit from None


@chaos.command("run", epilog="Example: tokenworks chaos run --config tokenworks.toml")
def run_command(
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="The configuration whose models and policies are tried.")
    ] = Path("tokenworks.toml"),
    model: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this model. Repeatable.")] = None,
    fault: Annotated[list[str] | None, typer.Option(metavar="FAULT", help="Only this fault. Repeatable.")] = None,
    json: AsJson = False,
) -> None:
    """Try every fault on every model of a configuration, with a healthy fallback and alone, and print a scorecard.

    Nothing outside this machine is called: a private stack runs the configuration with chaos in place of its upstreams,
    and its limits scaled down. Exit code 1 when a verdict is worse than it could be.
    """
    configuration = _read(config)
    models = _chosen("model", model, configuration.models)
    tried = cases(models, _chosen("fault", fault, FAULTS))
    try:
        results = _with_progress(configuration, tried, quiet=json)
    except CannotRun as error:
        raise output.CommandFailed(str(error)) from error
    if json:
        output.print_json([_row(result) for result in results])
    else:
        for name in models:
            output.console.print(_scorecard(name, [result for result in results if result.case.original == name]))
        _explain(results)
    if not all(result.green for result in results):
        raise typer.Exit(output.FAILED)


def _with_progress(configuration: Configuration, tried: Sequence[Case], *, quiet: bool) -> list[Result]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.console, transient=True, disable=quiet) as progress:
        task = progress.add_task("starting a private stack", total=len(tried))

        def finished(result: Result) -> None:
            progress.update(task, advance=1, description=f"{result.case.fault:<20}")

        return run(configuration, tried, finished)


def _read(config: Path) -> Configuration:
    try:
        configuration = load(config, protocols=PROTOCOLS, engines=None, known_providers=known_providers(PROTOCOLS))
    except ConfigError as error:
        raise output.CommandFailed(str(error), output.USAGE) from error
    if not configuration.models:
        raise output.CommandFailed(f"{config} names no models; add one, as docs/configuration.md shows", output.USAGE)
    return configuration


def _chosen(what: str, wanted: list[str] | None, known: Iterable[str]) -> list[str]:
    known = list(known)
    for name in wanted or ():
        if name not in known:
            raise output.CommandFailed(f"there is no {what} {name!r}; known: {', '.join(known)}", output.USAGE)
    return wanted or known


def _scorecard(name: str, results: list[Result]) -> Table:
    """One line for each fault: the worst of all clients, and the longest wait as a share of the bound."""
    bound = results[0].case.bound
    clients = {(result.case.client, result.case.stream) for result in results}
    table = Table(title=f"{name}: limits scaled to a total of {bound:g} s", title_justify="left", pad_edge=False)
    table.caption = (
        f"Each cell: the worst of {len(clients)} clients (protocols, streamed and whole). longest: their longest wait, "
        "as a share of the route's total limit. alone: nobody else can answer, so that a clean error is as good as can "
        "be. ✗: worse than it could be."
    )
    table.caption_justify = "left"
    for column in ("fault", "with a healthy fallback", "longest", "alone", "longest"):
        table.add_column(column, justify="right" if column == "longest" else "left", no_wrap=True)
    by_fault: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_fault[result.case.fault].append(result)
    for fault, found in by_fault.items():
        cells: list[Text] = [Text(fault)]
        for fallback in (True, False):
            those = [result for result in found if result.case.fallback is fallback]
            cells += [_worst(those), Text(f"{max(result.verdict.share for result in those):.0%}")]
        table.add_row(*cells)
    return table


def _worst(results: list[Result]) -> Text:
    worst = min((result.verdict.verdict for result in results), key=WORST.index)
    green = all(result.green for result in results)
    return Text(worst if green else f"{worst} ✗", style="green" if green else STYLES[worst])


def _explain(results: list[Result]) -> None:
    for result in results:
        if not result.green:
            how = "streamed" if result.case.stream else "whole"
            where = (
                f"{result.case.fault}, {'fallback' if result.case.fallback else 'alone'}, {result.case.client}, {how}"
            )
            output.console.print(Text(f"{where}: {result.verdict.verdict}: {result.verdict.why}", style="red"))
    green = sum(result.green for result in results)
    counts = ", ".join(
        f"{sum(result.verdict.verdict == verdict for result in results)} {verdict}" for verdict in reversed(WORST)
    )
    output.console.print(f"{green} of {len(results)} as good as can be: {counts}")


def _row(result: Result) -> dict[str, object]:
    case, verdict = result.case, result.verdict
    return {
        "model": case.original,
        "fault": case.fault,
        "fallback": case.fallback,
        "client": case.client,
        "stream": case.stream,
        "verdict": verdict.verdict,
        "why": verdict.why,
        "seconds": round(verdict.seconds, 3),
        "bound": case.bound,
        "green": result.green,
    }
