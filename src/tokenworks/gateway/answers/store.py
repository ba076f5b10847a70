"""Control's store of answers, as a gateway uses it. Every call names the caller's project."""

import asyncio
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from tokenworks.answers.records import PATH, AnswerRecord, EventsRecord, Page, Revision, Save, Saved
from tokenworks.client import CannotConnect, Client, ClientError
from tokenworks.core.errors import InvalidRequest, NotFound, Unavailable

T = TypeVar("T")

SAVE_SECONDS = 5.0
TRIES = 3
PAUSE_SECONDS = 0.3
"""Before a save is tried again: about as long as control takes to be started anew is not waited for."""

_ENCODE = msgspec.msgpack.Encoder().encode


class AnswerStore:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def save(self, id: str, save: Save, *, tries: int = TRIES) -> Saved:
        """Unavailable when control does not take it; whether it has it is then not known."""
        for tried in range(1, tries + 1):
            try:
                answered = await self._client.post_bytes(f"{PATH}/{id}", _ENCODE(save), timeout=SAVE_SECONDS)
                return msgspec.msgpack.decode(answered, type=Saved)
            except CannotConnect as error:
                if tried == tries:
                    raise _away() from error
            except ClientError as error:
                raise _refused(error) from error
            await asyncio.sleep(PAUSE_SECONDS)
        raise ValueError("tries must be positive")

    async def get(self, project_id: str, kind: str, id: str) -> AnswerRecord:
        return await self._get(f"/{id}", AnswerRecord, {"project": project_id, "kind": kind})

    async def chain(self, project_id: str, kind: str, id: str) -> list[AnswerRecord]:
        """The answer and all before it, oldest first."""
        return await self._get(f"/{id}/chain", list[AnswerRecord], {"project": project_id, "kind": kind})

    async def events(self, project_id: str, kind: str, id: str, first: int) -> EventsRecord:
        params = {"project": project_id, "kind": kind, "first": str(first)}
        return await self._get(f"/{id}/events", EventsRecord, params)

    async def page(
        self, project_id: str, kind: str, *, limit: int, after: str | None, oldest_first: bool = False
    ) -> Page:
        params = {"project": project_id, "kind": kind, "limit": str(limit)}
        if oldest_first:
            params["oldest_first"] = "true"
        return await self._get("", Page, params if after is None else params | {"after": after})

    async def cancel(self, project_id: str, kind: str, id: str) -> AnswerRecord:
        """What it is then: one that has ended stays as it is."""
        params = {"project": project_id, "kind": kind}
        try:
            found = await self._client.post_bytes(f"{PATH}/{id}/cancel", b"", params=params)
        except ClientError as error:
            raise _refused(error) from error
        return msgspec.msgpack.decode(found, type=AnswerRecord)

    async def revise(self, id: str, revision: Revision) -> None:
        try:
            await self._client.post_bytes(f"{PATH}/{id}/body", _ENCODE(revision))
        except ClientError as error:
            raise _refused(error) from error

    async def delete(self, project_id: str, kind: str, id: str) -> None:
        try:
            await self._client.delete(f"{PATH}/{id}?{urlencode({'project': project_id, 'kind': kind})}")
        except ClientError as error:
            raise _refused(error) from error

    async def _get(self, path: str, type: type[T], params: dict[str, str]) -> T:
        try:
            found = await self._client.get_bytes(f"{PATH}{path}?{urlencode(params)}")
        except ClientError as error:
            raise _refused(error) from error
        return msgspec.msgpack.decode(found, type=type)


def _refused(error: ClientError) -> NotFound | InvalidRequest | Unavailable:
    if error.status == 404:
        return NotFound(error.message, code=error.code or None)
    if error.status in (400, 413):
        return InvalidRequest(error.message, code=error.code or None)
    return _away()


def _away() -> Unavailable:
    return Unavailable(
        "What is stored cannot be reached right now; inference goes on.", code="control_unavailable", retry_after=2.0
    )
