"""A caller who leaves: its request is freed at once, although an exception went through all of its frames."""

import asyncio
import gc
from typing import Any

from tokenworks.gateway.edge.asgi import Edge
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.protocols.base import Codec
from tokenworks.telemetry.metrics import Metrics

SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/v1/chat/completions",
    "raw_path": b"/v1/chat/completions",
    "query_string": b"",
    "headers": [],
}
REQUESTS = 20


async def _answer(exchange: Exchange, codec: Codec) -> None:
    """As an attempt does: what ended it is looked at, in a frame that it went through, before it goes on."""
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        seen = error
        raise seen from None


async def _left(edge: Edge) -> None:
    async def nothing(*_: Any) -> Any:
        """Neither receives nor sends."""

    tasks = [asyncio.create_task(edge(SCOPE, nothing, nothing)) for _ in range(REQUESTS)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks)


def test_who_left_is_let_go() -> None:
    async def whole() -> int:
        edge = Edge(_answer, {"/v1/chat/completions": "openai_chat"}, {}, {}, Metrics())
        await _left(edge)
        gc.collect()
        gc.disable()
        try:
            await _left(edge)
            return gc.collect()
        finally:
            gc.enable()

    assert asyncio.run(whole()) < REQUESTS
