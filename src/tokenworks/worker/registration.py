"""Tells control about this replica: every second, at once when something changed, and good-bye at the end.

Control being away is normal: the engine goes on serving, and the next heartbeat that arrives says all there is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from tokenworks.client import Client, ClientError
from tokenworks.worker.engines.base import Engine
from tokenworks.worker.status import Status

INTERVAL = 1.0
log = logging.getLogger(__name__)


class Registration:
    def __init__(
        self, client: Client, replica: str, model: str, engine_name: str, labels: Mapping[str, Any] | None = None
    ) -> None:
        self._client = client
        self._path = f"/internal/v1/replicas/{quote(replica, safe='')}"
        self._model = model
        self._provider = f"local/{engine_name}"
        self._labels = labels or {}
        self._trouble: str | None = None

    async def run(self, engine: Engine, status: Status) -> None:
        while True:
            status.changed.clear()
            try:
                await self._client.put(self._path, self._record(engine, status))
                self._note(None)
            except ClientError as error:
                self._note(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(INTERVAL):
                    await status.changed.wait()

    async def end(self) -> None:
        """Best effort: control marks a silent replica by itself."""
        with contextlib.suppress(ClientError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._client.delete(self._path)

    def _record(self, engine: Engine, status: Status) -> dict[str, Any]:
        described = engine.describe()
        return {
            "model": self._model,
            "provider": self._provider,
            "protocols": described.protocols,
            "base_url": described.base_url,
            "state": status.state,
            "reason": status.reason,
            "quirks": described.quirks,
            "context_length": described.context_length,
            "max_output": described.max_output,
            "capabilities": described.capabilities,
            **self._labels,
        }

    def _note(self, error: ClientError | None) -> None:
        """One line when something changes: control goes, comes back, or refuses; not one a second."""
        trouble = error.message if error else None
        if trouble == self._trouble:
            return
        self._trouble = trouble
        if trouble is None:
            log.info("control takes heartbeats again")
        else:
            log.warning("control does not take heartbeats: %s; serving goes on", trouble)
