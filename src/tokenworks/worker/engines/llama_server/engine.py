"""The engine: where its child is and how to talk to it."""

import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tokenworks.client import Client, ClientError
from tokenworks.worker.engines import machine
from tokenworks.worker.engines.base import Description, EngineFailed, OptionError, Setup, read_options
from tokenworks.worker.engines.gguf import NotGGUF, read_metadata
from tokenworks.worker.engines.llama_server.plan import (
    DEFAULT_CONTEXT,
    Options,
    Plan,
    context_per_slot,
)
from tokenworks.worker.engines.purpose import MEASURES, able, measures
from tokenworks.worker.engines.server import ServerEngine
from tokenworks.worker.engines.shipped import template_text
from tokenworks.worker.sockets import host_and_port

QUIRKS = (
    "usage_per_choice",
    "completion_logprobs_as_chat",
    "usage_in_text_chunk",
    "no_min_tokens",
    "no_echo",
    "no_suffix",
    "repeat_penalty",
    "reasoning_by_template",
    "forced_tools_by_schema",
    "closes_after_stream",
    "continues_prefill",
)
GENERATES = ("json_schema",)
_WRITES_ONLY = "{} is for {}, which llama_server does not do: --engine llama does"
FLUSH = 0.3
"""Seconds that the last bytes of an answer may take to leave."""
ANSWER_LIMIT = 600.0
"""Seconds; the supervisor has its own, shorter ones."""
_WORK = re.compile(r"^llamacpp:(?:prompt_tokens_total|tokens_predicted_total|n_decode_total) (\S+)", re.MULTILINE)
_WAITING = re.compile(r"^llamacpp:requests_(?:processing|deferred) (\S+)", re.MULTILINE)


class LlamaServer(ServerEngine):
    sees = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.options = read_options(Options, setup.options)
        name = self.options.chat_template
        self._template = template_text(name) if name is not None else None
        if unserved := [capability for capability in MEASURES if capability in setup.capabilities]:
            raise OptionError(_WRITES_ONLY.format(f"--model {setup.model}", unserved[0]))
        self._busy = float("-inf")
        """When it last computed for somebody, as far as was asked."""
        self._context: int | None = None
        self._weights: Path | None = None

    def describe(self) -> Description:
        address = self.address
        return Description(
            protocols=("openai_chat", "openai_completions"),
            base_url=f"unix:{address.socket}|/v1" if address.socket else f"{address.origin}/v1",
            quirks=QUIRKS,
            capabilities=able(self.setup, None, GENERATES, sees=self.projector is not None),
            context_length=self._context,
            max_output=self.setup.max_output,
        )

    def command(self, weights: Path | None) -> list[str]:
        if weights is None:
            raise EngineFailed("llama_server needs --weights")
        try:
            metadata = read_metadata(weights)
        except (OSError, NotGGUF) as error:
            raise EngineFailed(str(error)) from error
        if (kind := measures(self.setup, metadata)) is not None:
            raise EngineFailed(_WRITES_ONLY.format(weights, kind))
        self._context = context_per_slot(self.options, metadata, self.setup.context_length, machine.memory())
        self._weights = weights
        return [sys.executable, "-m", f"{__package__}.child"]

    def told(self) -> bytes:
        return msgspec.json.encode(self.plan()) + b"\n"

    def plan(self) -> Plan:
        host, port = (self.address.socket, 0) if self.address.socket else host_and_port(self.address)
        options = self.options
        return Plan(
            model=self.setup.model,
            weights=str(self._weights),
            projector=str(self.projector) if self.projector is not None else None,
            host=host,
            port=port,
            slots=options.slots,
            context=self._context or DEFAULT_CONTEXT,
            threads=machine.threads(options.threads),
            poll=options.poll,
            batch=options.batch,
            ubatch=options.ubatch,
            gpu_layers=options.gpu_layers,
            verbosity=options.verbosity,
            chat_template=self._template,
            parent=os.getpid(),
            token=self.setup.token,
        )

    async def probe(self) -> None:
        body = {"prompt": "1 2 3", "max_tokens": 1, "temperature": 0}
        answer = await self._call("POST", "/v1/completions", body)
        if not isinstance(answer, dict) or not answer.get("usage", {}).get("completion_tokens"):
            raise EngineFailed(f"the probe got no token: {str(answer)[:200]}")

    async def progress(self) -> float:
        return sum(map(float, _WORK.findall(await self.metrics())))

    async def in_flight(self) -> int:
        """Its slots are free a moment before the last bytes of an answer have left it."""
        running = int(sum(map(float, _WAITING.findall(await self.metrics()))))
        if running:
            self._busy = time.monotonic()
        return running or int(time.monotonic() < self._busy + FLUSH)

    async def metrics(self) -> str:
        return str(await self._call("GET", "/metrics"))

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        """A connection for each call: the server closes idle ones when it likes."""
        async with Client(self.address, token=self.setup.token, timeout=ANSWER_LIMIT) as client:
            try:
                if method == "POST":
                    return await client.post(path, body)
                return (await client.get_bytes(path)).decode()
            except ClientError as error:
                raise EngineFailed(error.message) from error
