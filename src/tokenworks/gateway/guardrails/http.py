"""The hook that asks a service of the operator's. What it is sent and may answer is in docs/guardrails.md.

The address is the operator's, like those of providers: it is not looked at where it leads, and no redirect is followed.
"""

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from typing import Any, Literal

import aiohttp
import msgspec

from tokenworks.client import Address
from tokenworks.core.errors import TokenworksError
from tokenworks.gateway.guardrails.base import AFTER, BEFORE, LONGEST_REASON, Channel, Session, refused, unavailable
from tokenworks.protocols.webhooks import sign
from tokenworks.snapshot.records import GuardrailRecord
from tokenworks.snapshot.sealing import guardrail, unseal

log = logging.getLogger(__name__)

MOST_TEXT = 256 * 1024
"""Characters in one question; more are asked about in several."""
LARGEST_ANSWER = 4 * 1024 * 1024
LEAST_PART, MOST_PART = 160, 1_200
"""Characters of an answer that are asked about at once: from so many on to the end of a sentence, and never more."""
MOST_CALL = 64 * 1024
"""The same for arguments of a tool call, which are of no use before they are whole."""
FAILURES = 3
"""In a row; then it is left alone for a while, and its requests are treated at once as it says for failures."""
FIRST_REST, LONGEST_REST = 1.0, 30.0
KEEP_ALIVE_SECONDS = 4.0

MOST_ENTITIES = 50

_ENTITY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_SENTENCE = re.compile(r"[.!?:;。！？]\s|\n")
_ODD = re.compile(r"[^\x20-\x7e\xa0-\uffff]")


class Verdict(msgspec.Struct):
    action: Literal["allow", "redact", "block"]
    texts: list[str] = []
    reason: str = ""
    entities: dict[str, int] = {}


class HookFailed(Exception):
    pass


_VERDICT = msgspec.json.Decoder(Verdict).decode
_ENCODE = msgspec.json.Encoder().encode


class HttpHook:
    """`rest_until` on the monotonic clock: it is not asked before. Then one request finds out whether it is back."""

    def __init__(self, record: GuardrailRecord, cluster_key: bytes) -> None:
        self.record = record
        self._secret = unseal(cluster_key, guardrail(record.name), record.secret) if record.secret else ""
        self._address = Address.parse(record.url)
        self._session: aiohttp.ClientSession | None = None
        self._entities: set[str] = set()
        self._failures = 0
        self.rest_until = 0.0

    async def before(self, session: Session, texts: Sequence[str]) -> Sequence[str]:
        news: list[str] = []
        for batch in _batches(texts):
            news += await self.judged(session, BEFORE, batch, {})
        return news

    def stage(self, session: Session) -> "Asking":
        return Asking(self, session)

    async def judged(self, session: Session, phase: str, texts: list[str], more: dict[str, Any]) -> list[str]:
        """The texts as they may go on. ContentRefused when they may not; Unavailable when it fails and that closes."""
        if not texts:
            return texts
        try:
            verdict = await self._asked(session, phase, texts, more)
        except HookFailed as failure:
            session.fire(self.record, phase, "failed", "")
            log.warning("guardrail %s failed: %s", self.record.name, failure)
            if self.record.on_failure == "open":
                return texts
            raise unavailable(self.record.name, max(self.rest_until - time.monotonic(), 1.0)) from None
        if verdict.action == "block":
            session.fire(self.record, phase, "block", "")
            reason = _ODD.sub(" ", verdict.reason)[:LONGEST_REASON].strip(" .")
            raise refused(self.record.name, reason or "its content is not allowed")
        if verdict.action == "redact" and verdict.texts != texts:
            for entity, count in verdict.entities.items() or (("", 1),):
                session.fire(self.record, phase, "redact", self._named(entity), max(count, 0))
            return verdict.texts
        return texts

    def _named(self, entity: str) -> str:
        """What it calls something: few names, and short ones, since metrics and headers have them."""
        if entity not in self._entities:
            if len(self._entities) >= MOST_ENTITIES or not _ENTITY.fullmatch(entity):
                return "OTHER" if entity else ""
            self._entities.add(entity)
        return entity

    async def _asked(self, session: Session, phase: str, texts: list[str], more: dict[str, Any]) -> Verdict:
        now = time.monotonic()
        if self._failures >= FAILURES:
            if now < self.rest_until:
                raise HookFailed("it is left alone for a while, because it failed again and again")
            self.rest_until = now + self.record.timeout + FIRST_REST  # the others go on without it meanwhile
        try:
            async with asyncio.timeout(self.record.timeout):
                verdict = await self._post(session, phase, texts, more)
        except TimeoutError:
            raise self._failed(f"no answer within {self.record.timeout:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failed(str(error) or type(error).__name__) from None
        self._failures, self.rest_until = 0, 0.0
        return verdict

    def _failed(self, what: str) -> HookFailed:
        self._failures += 1
        if self._failures >= FAILURES:
            rest = min(FIRST_REST * 2 ** (self._failures - FAILURES), LONGEST_REST)
            self.rest_until = time.monotonic() + rest
        return HookFailed(what)

    async def _post(self, session: Session, phase: str, texts: list[str], more: dict[str, Any]) -> Verdict:
        session.asked += 1
        caller = session.caller
        body = _ENCODE(
            {
                "guardrail": self.record.name,
                "phase": phase,
                "request_id": session.request_id,
                "organization_id": caller.organization_id,
                "project_id": caller.project_id,
                "key_id": caller.key_id,
                "model": session.model,
                **more,
                "texts": texts,
            }
        )
        headers = {"content-type": "application/json"}
        if self._secret:
            message_id = f"{session.request_id}-{session.asked}"
            headers |= sign([self._secret], message_id, int(time.time()), body)
        url = self._address.url("")
        async with self._connections.post(url, data=body, headers=headers, allow_redirects=False) as response:
            answer = await response.content.read(LARGEST_ANSWER + 1)
            while len(answer) <= LARGEST_ANSWER and (rest := await response.content.read(LARGEST_ANSWER)):
                answer += rest
        if response.status != 200:
            raise ValueError(f"it answered {response.status}")
        if len(answer) > LARGEST_ANSWER:
            raise ValueError(f"it answered more than {LARGEST_ANSWER} bytes")
        verdict = _VERDICT(answer)
        if verdict.action == "redact" and len(verdict.texts) != len(texts):
            raise ValueError(f"it answered {len(verdict.texts)} texts for {len(texts)}")
        return verdict

    @property
    def _connections(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = self._address.connector(limit=0)
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Asking:
    """A stage that asks about a stream sentence by sentence, and tells nothing of one before it was answered."""

    def __init__(self, hook: HttpHook, session: Session) -> None:
        self.stopped = False
        self._hook = hook
        self._session = session
        self._open: dict[Channel, str] = {}

    async def feed(self, channel: Channel, text: str) -> str:
        text = self._open.get(channel, "") + text
        out = ""
        while not self.stopped and (end := _part(text, channel)):
            out += await self._judged(channel, text[:end], final=False)
            text = text[end:]
        self._open[channel] = text
        return out

    async def close(self, channel: Channel) -> str:
        text = self._open.pop(channel, "")
        return await self._judged(channel, text, final=True) if text and not self.stopped else ""

    async def _judged(self, channel: Channel, text: str, *, final: bool) -> str:
        more = {"choice": channel.choice, "kind": channel.kind, "final": final}
        try:
            return (await self._hook.judged(self._session, AFTER, [text], more))[0]
        except TokenworksError as error:
            if error.code == "guardrail_unavailable":
                raise
            self.stopped = True
            return ""


def _part(text: str, channel: Channel) -> int:
    """How much of it is asked about now; 0: more is waited for."""
    most = MOST_CALL if channel.json else MOST_PART
    ends = () if channel.json else (found.end() for found in _SENTENCE.finditer(text))
    return next((end for end in ends if LEAST_PART <= end <= most), most if len(text) >= most else 0)


def _batches(texts: Sequence[str]) -> list[list[str]]:
    batches: list[list[str]] = [[]]
    size = 0
    for text in texts:
        if size + len(text) > MOST_TEXT and batches[-1]:
            batches.append([])
            size = 0
        batches[-1].append(text)
        size += len(text)
    return batches
