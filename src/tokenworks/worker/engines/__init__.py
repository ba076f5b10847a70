"""Engines, chosen by name. A module is imported when its engine is chosen, so a missing extra hurts nobody else.

Adding an engine is adding a folder here and a row below; see docs/add-an-engine.md.
"""

from importlib import import_module

from tokenworks.worker.engines.base import Engine, OptionError

ENGINES = {
    "echo": "tokenworks.worker.engines.echo.engine:Echo",
    "llama": "tokenworks.worker.engines.llama.engine:Llama",
    "llama_server": "tokenworks.worker.engines.llama_server.engine:LlamaServer",
}


def engine_class(name: str) -> type[Engine]:
    """OptionError with the known names for any other."""
    try:
        module, _, attribute = ENGINES[name].partition(":")
    except KeyError:
        raise OptionError(f"--engine: unknown engine {name!r}; known: {', '.join(sorted(ENGINES))}") from None
    found: type[Engine] = getattr(import_module(module), attribute)
    return found
