"""LoRA adapters: files in a folder, each a model of its own on the same weights.

`NAME.gguf` is loaded with the first request that names it and freed when others need its place or the file is gone; one
that was replaced is another adapter. So adapters come and go while the engine runs, and nothing has to be told.
"""

import asyncio
import contextlib
import functools
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path

from tokenworks.core.errors import InvalidRequest, NotFound
from tokenworks.worker.engines.llama.binding import ffi, library
from tokenworks.worker.engines.llama.kernel import Kernel
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.runner import Runner

MOST = 16
"""Loaded at the same time, besides those in use."""
SUFFIX = ".gguf"


class Adapters:
    """`folder` None: there are none."""

    def __init__(self, folder: Path | None, base: str, model: Model, kernel: Kernel, runner: Runner) -> None:
        self._folder = folder
        self._base = base
        self._model = model
        self._kernel = kernel
        self._runner = runner
        self._loaded: OrderedDict[str, None] = OrderedDict()
        """Keys; the one that was used longest ago comes first."""
        self._uses: Counter[str] = Counter()
        self._lock = asyncio.Lock()
        self._loading: dict[str, asyncio.Task[None]] = {}

    @contextlib.asynccontextmanager
    async def using(self, model: str) -> AsyncIterator[str]:
        """What keys and values are kept under for a request that names `model`: "" for the weights as they are. The
        adapter stays loaded meanwhile. NotFound, InvalidRequest."""
        key = self._key(model)
        if not key:
            yield ""
            return
        self._uses[key] += 1
        try:
            if key not in self._loaded:
                if key not in self._loading:
                    self._loading[key] = asyncio.create_task(self._load(model, key))
                await asyncio.shield(self._loading[key])
            self._loaded.move_to_end(key)
            yield key
        finally:
            self._uses[key] -= 1
            if not self._uses[key]:
                del self._uses[key]

    def _key(self, model: str) -> str:
        if model in ("", self._base) or self._folder is None:
            return ""
        if model != Path(model).name:
            raise NotFound(f"There is no adapter '{model}'.", code="model_not_found", param="model")
        try:
            status = (self._folder / (model + SUFFIX)).stat()
        except OSError:
            raise NotFound(f"There is no adapter '{model}'.", code="model_not_found", param="model") from None
        return f"{model}@{status.st_mtime_ns}.{status.st_size}"

    async def _load(self, model: str, key: str) -> None:
        try:
            async with self._lock:
                self._make_room()
                assert self._folder is not None  # noqa: S101 -- it has a key
                path = str(self._folder / (model + SUFFIX)).encode()
                pointer = await asyncio.to_thread(library().llama_adapter_lora_init, self._model.pointer, path)
                if pointer == ffi.NULL:
                    raise InvalidRequest(f"The adapter '{model}' is not one of these weights.", param="model")
                self._runner.call(lambda: self._kernel.adapters.__setitem__(key, pointer))
                self._loaded[key] = None
        finally:
            del self._loading[key]

    def _make_room(self) -> None:
        idle = [key for key in self._loaded if not self._uses[key]]
        for key in idle:
            if self._stale(key) or len(self._loaded) >= MOST:
                del self._loaded[key]
                self._runner.call(functools.partial(self._kernel.forget, key))

    def _stale(self, key: str) -> bool:
        """Its file is gone or another one."""
        try:
            return self._key(key.rpartition("@")[0]) != key
        except NotFound:
            return True
