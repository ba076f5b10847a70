"""The worker's side: it plans, starts and watches the child that computes, and calls it by the worker protocol."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from tokenworks.client import Client, ClientError
from tokenworks.models import Entry
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines import machine
from tokenworks.worker.engines.base import Description, EngineFailed, OptionError, Setup, read_options
from tokenworks.worker.engines.gguf import NotGGUF, read_metadata
from tokenworks.worker.engines.llama.options import MEBIBYTE, Options, Plan, cache, context, disk, longest_text
from tokenworks.worker.engines.purpose import able, measures
from tokenworks.worker.engines.server import ServerEngine
from tokenworks.worker.engines.shipped import template_text

GENERATES = ("tools", "json_schema")
ANSWER_LIMIT = 600.0
"""Seconds; the supervisor has its own, shorter ones."""


class Llama(ServerEngine):
    more_weights = ("draft",)

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.options = read_options(Options, setup.options)
        if self.options.disk and self.options.disk_folder is None:
            raise OptionError(
                "--option disk: say where, with --option disk_folder=/PATH; the files hold tokens of prompts"
            )
        if self.options.prepare and find_spec("gguf") is None:
            raise OptionError("--option prepare: gguf is not installed: pip install 'tokenworks[optimize]'")
        name = self.options.chat_template
        self._template = template_text(name) if name is not None else None
        self._context: int | None = None
        self._weights: Path | None = None
        self._measures: str | None = None
        self._draft: Path | None = None

    def describe(self) -> Description:
        address = self.address
        return Description(
            protocols=("worker",),
            quirks=("continues_prefill", "grammars"),
            base_url=f"unix:{address.socket}|{wire.PREFIX}" if address.socket else f"{address.origin}{wire.PREFIX}",
            capabilities=able(self.setup, self._measures, GENERATES),
            context_length=self._context,
            max_output=self.setup.max_output,
        )

    async def prepare(self, entry: Entry, weights: Path, cache_dir: Path, explain: Callable[[str], None]) -> Path:
        if not self.options.prepare:
            return weights
        from tokenworks.worker.engines.llama.optimizing.preparing import prepared  # its library is an extra

        return await prepared(entry, weights, cache_dir, explain)

    def hand(self, option: str, weights: Path) -> None:
        self._draft = weights

    def command(self, weights: Path | None) -> list[str]:
        if weights is None:
            raise EngineFailed("this engine needs --weights")
        try:
            metadata = read_metadata(weights)
            draft = read_metadata(self._draft) if self._draft is not None else None
        except (OSError, NotGGUF) as error:
            raise EngineFailed(str(error)) from error
        self._measures = measures(self.setup, metadata)
        known = self.setup.context_length
        if self._measures is not None:
            self._context = longest_text(self.options, metadata, known)
        else:
            self._context = context(self.options, metadata, known, machine.memory(), draft)
        self._weights = weights
        return [sys.executable, "-m", f"{__package__}.child"]

    def told(self) -> bytes:
        return msgspec.json.encode(self.plan()) + b"\n"

    def plan(self) -> Plan:
        options, setup = self.options, self.setup
        return Plan(
            model=setup.model,
            weights=str(self._weights),
            address=str(self.address),
            slots=options.slots,
            context=self._context or 0,
            threads=machine.threads(options.threads),
            batch=options.batch,
            step=options.step,
            queue=options.queue,
            cache=cache(options, machine.memory()),
            gpu_layers=options.gpu_layers,
            template=self._template,
            lookup=options.lookup,
            lookup_memory=options.lookup_memory * MEBIBYTE,
            draft=str(self._draft) if self._draft is not None else None,
            trace=options.trace,
            adapters=options.adapters,
            parent=os.getpid(),
            measures=self._measures is not None,
            capabilities=setup.capabilities,
            max_output=setup.max_output,
            token=setup.token,
            secret=setup.secret,
            disk=disk(options, self._weights) if self._weights is not None else None,
        )

    async def probe(self) -> None:
        await self._call("health")

    async def progress(self) -> float:
        return float((await self._call("progress"))["progress"])

    async def in_flight(self) -> int:
        return int((await self._call("progress"))["running"])

    async def metrics(self) -> str:
        async with Client(self.address, token=self.setup.token, timeout=ANSWER_LIMIT) as client:
            try:
                return (await client.get_bytes(f"{wire.PREFIX}/metrics")).decode()
            except ClientError as error:
                raise EngineFailed(error.message) from error

    async def _call(self, path: str) -> Any:
        async with Client(self.address, token=self.setup.token, timeout=ANSWER_LIMIT) as client:
            try:
                return await client.get(f"{wire.PREFIX}/{path}")
            except ClientError as error:
                raise EngineFailed(error.message) from error
