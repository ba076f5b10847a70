"""Reading a stream again, or along: from the run in this gateway, or from what control was told of another's."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from tokenworks.answers.records import AnswerRecord
from tokenworks.core.errors import InvalidRequest
from tokenworks.gateway.answers.store import AnswerStore
from tokenworks.gateway.edge import headers
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.protocols.base import Codec

LOOK_SECONDS = 0.5
KEEP_ALIVE_SECONDS = 10.0


class Reading:
    """The events that control has of one answer, until it has ended. `answer` is then what it was at its end."""

    def __init__(self, store: AnswerStore, project_id: str, answer: AnswerRecord) -> None:
        self._store = store
        self._project_id = project_id
        self.answer = answer

    async def blocks(self) -> AsyncIterator[bytes]:
        number = 0
        while True:
            found = await self._store.events(self._project_id, self.answer.kind, self.answer.id, number)
            self.answer = found.answer
            for events in found.events:
                for block in events.blocks()[number - events.first :]:
                    yield block
                    number += 1
            if self.answer.ended:
                return
            await asyncio.sleep(LOOK_SECONDS)


async def relay(exchange: Exchange, codec: Codec, blocks: AsyncIterator[bytes]) -> None:
    """Answer with these events."""

    async def started() -> None:
        pass

    await exchange.start_stream(codec.stream_content_type, headers.of_answer(exchange))
    exchange.keep_alive(KEEP_ALIVE_SECONDS, codec.stream_comment, started)
    async for block in blocks:
        await exchange.write(block + b"\n\n")
    await exchange.finish()


def query(exchange: Exchange) -> dict[str, str]:
    return dict(parse_qsl(exchange.query.decode("latin-1")))


def whole_number(text: str, param: str, *, least: int = 0, most: int | None = None) -> int:
    """InvalidRequest when it is none, or outside of its range."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 16 else -1
    if number >= least and (most is None or number <= most):
        return number
    wanted = f"from {least}" if most is None else f"from {least} to {most}"
    raise InvalidRequest(f"'{param}' must be a whole number {wanted}.", param=param)
