"""A response that runs in the background, as its caller sees it."""

import time

from tokenworks.core.errors import TokenworksError
from tokenworks.core.request import Request
from tokenworks.journal.records import Settled
from tokenworks.protocols.openai_responses import stored


class BackgroundResponse:
    """A subject of runs.py."""

    def __init__(self, request: Request, response_id: str, created: int) -> None:
        self.id = response_id
        self.status = "queued"
        self.stream = request.stream
        self._request = request
        self._created = created
        self._events = 0
        self._body = stored.draft(request, response_id, created, self.status)

    def body(self) -> bytes:
        return self._body

    def begin(self) -> None:
        self._change("in_progress")

    def see(self, block: bytes) -> None:
        self._events += 1
        body = stored.ended_response(block)
        if body is not None:
            self._end(body)

    def succeed(self, whole: bytes, settled: Settled) -> None:
        if whole:
            self._end(whole)

    def fail(self, error: TokenworksError, told: bool) -> bytes:
        if told:
            return b""
        self._body = stored.failed(self._request, self.id, self._created, error)
        self.status = "failed"
        return self._terminal()

    def cancel(self) -> bytes:
        self._change("cancelled")
        return self._terminal()

    def progress(self, blocks: list[bytes]) -> tuple[str, ...]:
        return ()

    def _change(self, status: str) -> None:
        self.status = status
        self._body = stored.changed(self._body, status=status)

    def _end(self, body: bytes) -> None:
        self._body = stored.completed(body, int(time.time()))
        self.status = stored.status(self._body)

    def _terminal(self) -> bytes:
        return stored.terminal_event(self._body, self._events) if self.stream else b""
