"""Option `prepare`: a worker makes the fastest copy of its weights by itself, before it first serves them."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from tokenworks.models import Entry, Progress, WeightsError, optimized
from tokenworks.worker.engines.llama.optimizing.choosing import choose
from tokenworks.worker.engines.llama.optimizing.requantize import FORMATS, CannotRequantize
from tokenworks.worker.weights import in_percent, in_thread

log = logging.getLogger(__name__)


async def prepared(entry: Entry, weights: Path, cache_dir: Path, explain: Callable[[str], None]) -> Path:
    """The copy, or `weights` when nothing is better or none can be made: whoever asked for speed still wants to serve.
    `explain` hears how far it is."""
    loop = asyncio.get_running_loop()

    def begin(title: str) -> Progress:
        return in_percent(lambda text: loop.call_soon_threadsafe(explain, text), f"preparing {entry.name}: {title},")

    def make() -> Path:
        with optimized.making(entry, cache_dir):
            if optimized.is_copy(entry, weights, cache_dir):
                return weights
            if optimized.decided(entry, weights, cache_dir):
                made = optimized.find(entry, weights, cache_dir)
                return made.path if made else weights
            choice = choose(
                entry, weights, cache_dir, formats=list(FORMATS), most_loss=optimized.MOST_LOSS, progress=begin
            )
            log.info("%s: %s is used, %.2f times as fast", entry.name, choice.best.format, choice.best.gain)
            return choice.path

    try:
        return await in_thread(make)
    except (CannotRequantize, WeightsError, OSError) as error:
        log.warning("%s is served as it is, no faster copy of it was made: %s", entry.name, error)
        return weights
