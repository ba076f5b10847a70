"""Weights of a worker: catalog name or source -> what the catalog knows, and the file, fetched when needed."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tokenworks.models import Entry, Progress, WeightsError, fetch, load_catalog, optimized
from tokenworks.worker.engines.base import EngineFailed

T = TypeVar("T")


def find(name_or_source: str, catalogs: tuple[Path, ...], model: str) -> Entry:
    """WeightsError with near matches for an unknown name."""
    return load_catalog(catalogs).resolve(name_or_source, name=model)


async def fetched(entry: Entry, cache_dir: Path, explain: Callable[[str], None]) -> Path:
    """The file, or a copy that is faster here. EngineFailed says what stands in the way; `explain` hears how far."""
    loop = asyncio.get_running_loop()
    progress = in_percent(lambda text: loop.call_soon_threadsafe(explain, text), f"fetching {entry.source}:")

    def fastest() -> Path:
        path = fetch(entry, cache_dir, progress)
        made = optimized.find(entry, path, cache_dir)
        return made.path if made else path

    try:
        return await in_thread(fastest)
    except (WeightsError, OSError) as error:
        raise EngineFailed(str(error)) from error


def in_percent(tell: Callable[[str], object], what: str) -> Progress:
    """Tells each percent once, after the words of `what`."""
    told = -1

    def progress(done: int, total: int | None) -> None:
        nonlocal told
        percent = done * 100 // total if total else 0
        if percent != told:
            told = percent
            tell(f"{what} {percent} %")

    return progress


async def in_thread(work: Callable[[], T]) -> T:
    """In a daemon thread: a download that hangs must not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error is not None else done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 -- handed to the waiting task, which raises it
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="fetch", daemon=True).start()
    return await done
