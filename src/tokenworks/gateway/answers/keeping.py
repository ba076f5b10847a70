"""A response on its way to its caller is stored before its last bytes leave: they say whether it was."""

import time

import msgspec
import structlog

from tokenworks.answers.records import RESPONSE, Save, pack
from tokenworks.core.errors import TokenworksError
from tokenworks.core.request import Request
from tokenworks.gateway.answers.store import AnswerStore
from tokenworks.protocols.openai_responses import stored
from tokenworks.protocols.sse import Splitter, data_of

NOT_STORED = b": this response could not be stored\n\n"

log = structlog.get_logger("tokenworks.gateway")


class Keeper:
    """Of one exchange: what has left of its answer."""

    def __init__(self, store: AnswerStore, project_id: str, asked: Request) -> None:
        self._store = store
        self._project_id = project_id
        self._asked = asked
        self._seen: list[bytes] = []

    def note(self, chunk: bytes) -> None:
        self._seen.append(chunk)


class Keeping(Keeper):
    """`asked` is the request as the caller sent it, before its history was put in."""

    async def last(self, data: bytes) -> bytes:
        """The end of the stream, or the whole answer; its `store` becomes false when it could not be stored."""
        if self._asked.stream:
            return await self._stream(data)
        if not data:  # it failed, after padding had left
            return data
        body = stored.completed(data, int(time.time()))
        return body if await self._save(body, []) else stored.changed(body, store=False)

    async def _stream(self, data: bytes) -> bytes:
        blocks = events_of(b"".join([*self._seen, data]))
        body = stored.ended_response(blocks[-1]) if blocks else None
        if body is None:
            return data
        body = stored.completed(body, int(time.time()))
        number = stored.sequence_number(blocks[-1])
        blocks[-1] = stored.terminal_event(body, number).rstrip(b"\n")
        kept = await self._save(body, blocks)
        if not data:  # it failed, and the event that says so has left
            return b"" if kept else NOT_STORED
        last = blocks[-1] + b"\n\n" if kept else stored.terminal_event(stored.changed(body, store=False), number)
        return b"".join([block + b"\n\n" for block in events_of(data)[:-1]]) + last

    async def _save(self, body: bytes, blocks: list[bytes]) -> bool:
        save, response_id = response_save(self._asked, self._project_id, body)
        if blocks:
            save = msgspec.structs.replace(save, events=pack(0, blocks))
        try:
            await self._store.save(response_id, save)
        except TokenworksError as error:
            log.warning("a response is not stored", response=response_id, code=error.code, message=error.message)
            return False
        return True


def events_of(data: bytes) -> list[bytes]:
    """The events in a stream, without its comments."""
    splitter = Splitter()
    return [block for block in splitter.feed(data) + splitter.close() if data_of(block) is not None]


def response_save(asked: Request, project_id: str, body: bytes, *, ended: bool = True) -> tuple[Save, str]:
    """The first save of a response, and its id."""
    response = stored.stored_response(asked, body)
    save = Save(
        kind=RESPONSE,
        project_id=project_id,
        model=response.model,
        status=response.status,
        created_at=response.created_at,
        body=response.body,
        create=True,
        ended=ended,
        previous_id=response.previous_response_id,
        input=b"[" + b",".join(response.input_items) + b"]",
    )
    return save, response.id
