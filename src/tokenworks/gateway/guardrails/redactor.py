"""The hook that finds known entities and the operator's own patterns by itself."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

from tokenworks.gateway.guardrails.base import AFTER, BEFORE, Channel, Session, refused
from tokenworks.redaction.editing import Editor, JsonEditor, TextEditor, edited
from tokenworks.redaction.entities import Rule, rules
from tokenworks.redaction.patterns import Pattern
from tokenworks.redaction.placeholders import PATTERN
from tokenworks.redaction.scanner import Replace, Rules
from tokenworks.snapshot.records import GuardrailRecord

AT_ONCE = 32 * 1024
"""Characters. More are looked at beside the event loop."""

_PLACEHOLDERS = Rules([Rule("PLACEHOLDER", Pattern(PATTERN))])


class Redactor:
    def __init__(self, record: GuardrailRecord) -> None:
        self.record = record
        self._rules = Rules(rules(record.entities, record.phone_regions, record.patterns))

    async def before(self, session: Session, texts: Sequence[str]) -> Sequence[str]:
        found: Counter[str] = Counter()
        if sum(map(len, texts)) < AT_ONCE:
            news = self._all(session, texts, found)
        else:
            news = await asyncio.to_thread(self._all, session, texts, found)
        action = self.record.action
        for entity, count in found.items():
            session.fire(self.record, BEFORE, action, entity, count)
        if found and action == "block":
            raise refused(self.record.name, f"it contains {', '.join(sorted(found))}")
        return news

    def _all(self, session: Session, texts: Sequence[str], found: Counter[str]) -> list[str]:
        redacts, restored = self.record.action == "redact", self.record.restore

        def replace(entity: str, text: str) -> str:
            found[entity] += 1
            return session.placeholders.of(entity, text, restored=restored) if redacts else text

        return [edited(TextEditor(self._rules, replace), text) for text in texts]

    def stage(self, session: Session) -> "Editing":
        action = self.record.action
        stage: Editing

        def replace(entity: str, text: str) -> str | None:
            session.fire(self.record, AFTER, action, entity)
            if action == "block":
                stage.stopped = True
                return None
            return session.placeholders.of(entity, text) if action == "redact" else text

        stage = Editing(self._rules, replace)
        return stage

    async def close(self) -> None:
        return


class Editing:
    """A stage that edits by rules."""

    def __init__(self, rules: Rules, replace: Replace) -> None:
        self.stopped = False
        self._rules = rules
        self._replace = replace
        self._editors: dict[Channel, Editor] = {}

    async def feed(self, channel: Channel, text: str) -> str:
        editor = self._editors.get(channel)
        if editor is None:
            kind: Callable[[Rules, Replace], Editor] = JsonEditor if channel.json else TextEditor
            editor = self._editors[channel] = kind(self._rules, self._replace)
        return editor.feed(text)

    async def close(self, channel: Channel) -> str:
        editor = self._editors.pop(channel, None)
        return "" if editor is None else editor.close()


def restoring(session: Session) -> Editing:
    """Makes of placeholders what they stand for, where the guardrail that made them of the request wants that."""
    known = dict(session.placeholders.restored)
    return Editing(_PLACEHOLDERS, lambda entity, text: known.get(text, text))
