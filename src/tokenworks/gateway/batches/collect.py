"""An exchange without a socket: what would have gone to a caller is kept."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tokenworks.gateway.edge.exchange import Exchange


class CollectingExchange(Exchange):
    """A POST to `path` whose caller and body are known, so that it is never read from."""

    def __init__(self, path: str, request_id: str) -> None:
        scope: dict[str, Any] = {
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
        }
        super().__init__(scope, _never, self._collect)
        self.request_id = request_id
        self.body = bytearray()

    def keep_alive(self, every: float, comment: bytes, start: Callable[[], Awaitable[None]]) -> None:
        """Nobody waits."""

    async def _collect(self, message: dict[str, Any]) -> None:
        self.body += message.get("body", b"")


async def _never() -> dict[str, Any]:
    return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]
