"""The guardrails of this gateway: which apply to a request, what they make of it, and who looks at its answer."""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module

from msgspec.structs import replace as replace_record

from tokenworks.core import request_ids
from tokenworks.core.caller import Caller
from tokenworks.core.errors import ContentRefused, Unavailable
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.gateway.admission.residency import require
from tokenworks.gateway.guardrails.base import AFTER, BEFORE, Hook, Session, Stage, line, refused, summary
from tokenworks.gateway.metering.attempt import Asked, Meter
from tokenworks.protocols.texts import edited_request, has_tokens
from tokenworks.snapshot.records import GuardrailRecord
from tokenworks.snapshot.state import State

log = logging.getLogger(__name__)

CLOSE_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Watch:
    """What is to be done with the answer of one request."""

    session: Session
    hooks: tuple[Hook, ...]
    restores: bool
    fired: Counter[str]
    """Before the answer, as base.summary tells it."""
    told: str
    """The same for a header, with the names of all that looked."""

    @property
    def looks(self) -> bool:
        """At the answer."""
        return bool(self.hooks) or self.restores

    @property
    def names(self) -> str:
        return ", ".join(hook.record.name for hook in self.hooks)

    def stages(self) -> list[Stage]:
        """For one more answer: none knows of another's text. Placeholders become texts again when all have looked."""
        found: list[Stage] = [hook.stage(self.session) for hook in self.hooks]
        if self.restores:
            redactor = import_module("tokenworks.gateway.guardrails.redactor")
            found.append(redactor.restoring(self.session))
        return found


class Guardrails:
    def __init__(self, cluster_key: bytes, meter: Meter) -> None:
        self._cluster_key = cluster_key
        self._meter = meter
        self._hooks: dict[str, Hook] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def before(self, asked: Asked, state: State) -> tuple[Asked, Watch | None]:
        """What is asked as the hooks let it go on, and what is to be done with its answer; None: nothing.

        ContentRefused and Unavailable as they say; PermissionDenied where a residency policy forbids to ask one."""
        caller, request = asked.caller, asked.request
        records = state.guardrails_of(caller.key_id, caller.project_id, request.model)
        if not records:
            return asked, None
        session = Session(asked.request_id, caller, request.model, request.body, self._meter.metrics)
        try:
            request, hooks = await self._looked_at(session, records, request, state)
        except ContentRefused as error:
            self._meter.refuse(asked, error, line(summary(session.fired)))
            raise
        told = isinstance(request.task, Conversation | Prompts)
        after = tuple(hook for hook in hooks if hook.record.phase != BEFORE and told)
        restored = session.placeholders.restored if told else {}
        if request.logprobs and (after or restored):  # tokens would tell what was taken out
            request = replace(request, logprobs=False, top_logprobs=0, ignored=[*request.ignored, "logprobs"])
        request = replace(request, guarded=_alike(records, restored))
        watch = Watch(session, after, bool(restored), summary(session.fired), _told(records, session))
        return replace_record(asked, request=request), watch

    async def allowed(self, request: Request, caller: Caller, state: State) -> Request:
        """What may be told of a request whose answer nobody looks at. Raises as `before`."""
        records = state.guardrails_of(caller.key_id, caller.project_id, request.model)
        if not records:
            return request
        session = Session(request.id or request_ids.new(), caller, request.model, request.body, self._meter.metrics)
        return (await self._looked_at(session, records, request, state))[0]

    async def _looked_at(
        self, session: Session, records: Sequence[GuardrailRecord], request: Request, state: State
    ) -> tuple[Request, list[Hook]]:
        caller = session.caller
        if policies := state.policies(caller.organization_id, caller.project_id):
            require(policies, [(f"the guardrail '{each.name}'", each) for each in records if each.url])
        hooks = [self._hook(record) for record in records]
        for hook in hooks:
            if hook.record.phase != AFTER:
                if has_tokens(request):
                    raise refused(hook.record.name, "it has ids of tokens in the place of text, which cannot be read")
                request = await self._passed(hook, session, request)
        return request, hooks

    async def _passed(self, hook: Hook, session: Session, request: Request) -> Request:
        found: dict[str, None] = {}

        def collect(text: str) -> str:
            if text:
                found[text] = None
            return text

        edited_request(request, collect)
        texts = list(found)
        news = await hook.before(session, texts)
        changed = {text: new for text, new in zip(texts, news, strict=True) if new != text}
        return edited_request(request, lambda text: changed.get(text, text)) if changed else request

    def _hook(self, record: GuardrailRecord) -> Hook:
        known = self._hooks.get(record.name)
        if known is not None:
            if known.record == record:
                return known
            task = asyncio.create_task(_close_later(known))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        try:
            hook = self._hooks[record.name] = _made(record, self._cluster_key)
        except ValueError as error:
            log.warning("guardrail %s cannot be used: %s", record.name, error)
            raise Unavailable(
                f"The guardrail '{record.name}' cannot be used by this gateway.", code="guardrail_unavailable"
            ) from error
        return hook

    async def close(self) -> None:
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for hook in self._hooks.values():
            await hook.close()


def _told(records: Sequence[GuardrailRecord], session: Session) -> str:
    """`pii;EMAIL=2;PHONE=1, other`"""
    found = [[record.name] for record in records]
    for place, record in enumerate(records):
        for (name, action, entity), count in sorted(session.fired.items()):
            if name == record.name:
                found[place].append(f"{entity or action}={count}")
    return ", ".join(";".join(parts) for parts in found)


async def _close_later(hook: Hook) -> None:
    """Requests that it looks at have had their time by then."""
    try:
        await asyncio.sleep(CLOSE_SECONDS)
    finally:
        await hook.close()


def _made(record: GuardrailRecord, cluster_key: bytes) -> Hook:
    """ValueError for one that this gateway cannot have. Each kind is imported by the first that needs it."""
    kind = record.kind
    if kind == "redactor":
        hook: Hook = import_module("tokenworks.gateway.guardrails.redactor").Redactor(record)
    elif kind == "http":
        hook = import_module("tokenworks.gateway.guardrails.http").HttpHook(record, cluster_key)
    else:
        raise ValueError(f"its kind {kind!r} is unknown here: upgrade the older one")
    return hook


def _alike(records: Sequence[GuardrailRecord], restored: dict[str, str]) -> str:
    """The same for requests whose answers may stand for each other's: the same hooks, and placeholders that become the
    same texts. Nobody can read them out of it who does not know them."""
    return hashlib.sha256(repr((records, sorted(restored.items()))).encode("utf-8", "surrogatepass")).hexdigest()
