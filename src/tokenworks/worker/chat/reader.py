"""What a model says, in pieces -> text, reasoning and tool calls, the same however the pieces are cut."""

import re
import secrets
from collections.abc import Callable, Sequence

from tokenworks.core.events import ReasoningDelta, TextDelta, ToolCallDelta
from tokenworks.protocols.worker.types import Tool
from tokenworks.worker.chat.body import Arguments, Begin, Body, NoCall, Part
from tokenworks.worker.chat.formats import Format, Thoughts
from tokenworks.worker.chat.json_calls import JSONCalls
from tokenworks.worker.chat.markers import find, held

Delta = TextDelta | ReasoningDelta | ToolCallDelta

_FENCE = re.compile(r"```(?:json|tool_call|tool_code)?\s*\n\s*(?=\{)")
_MAYBE_FENCE = re.compile(r"`{0,3}$|```[a-z_]{0,9}\s*$")


def new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


class Reader:
    """For one choice. Without `tools` nothing is a call; with `thinking` the prompt has begun the reasoning.

    With `parallel` off it is `done` after the first call: the engine may stop there, what follows is dropped.
    """

    def __init__(
        self,
        format: Format,
        tools: Sequence[Tool] = (),
        *,
        thinking: bool = False,
        parallel: bool = True,
        ids: Callable[[], str] = new_id,
    ) -> None:
        self._thoughts = _Thinking(format.thoughts, thinking) if format.thoughts else None
        self._calls = _Calls(format, tools, parallel, ids) if tools else None

    @property
    def calls(self) -> int:
        """Calls that have begun: with any, the answer's finish is `tool_calls`."""
        return self._calls.count if self._calls else 0

    @property
    def done(self) -> bool:
        return self._calls is not None and self._calls.done

    def feed(self, text: str) -> list[Delta]:
        deltas: list[Delta] = []
        if self._thoughts is not None:
            thought, text = self._thoughts.feed(text)
            deltas += [ReasoningDelta(thought)] if thought else []
        return deltas + self._said(text)

    def close(self) -> list[Delta]:
        """What was held back."""
        deltas: list[Delta] = []
        if self._thoughts is not None:
            thought, text = self._thoughts.close()
            deltas += [ReasoningDelta(thought)] if thought else []
            deltas += self._said(text)
        return deltas + (self._calls.close() if self._calls is not None else [])

    def _said(self, text: str) -> list[Delta]:
        if self._calls is not None:
            return self._calls.feed(text)
        return [TextDelta(text)] if text else []


class _Thinking:
    """Splits reasoning off. It stands before the answer; a marker further on is text that speaks of it.

    White space around reasoning belongs to nothing: templates put their own there."""

    def __init__(self, thoughts: Thoughts, inside: bool) -> None:
        self._thoughts = thoughts
        self._text = ""
        self._inside = inside
        self._over = False
        self._begun = False
        """Something of this stretch of reasoning was told."""
        self._any = inside

    def feed(self, text: str) -> tuple[str, str]:
        """(reasoning, text)"""
        if self._over:
            return "", text
        self._text += text
        thought = ""
        while True:
            if self._inside:
                at = self._text.find(self._thoughts.close)
                if at < 0:
                    keep = len(self._text) - held(self._text, (self._thoughts.close,))
                    return thought + self._take(len(self._text[:keep].rstrip())), ""
                thought += self._take(at).rstrip()
                self._text, self._inside = self._text[len(self._thoughts.close) :], False
            rest = self._text.lstrip()
            if rest.startswith(self._thoughts.open):
                self._text, self._inside, self._any, self._begun = rest[len(self._thoughts.open) :], True, True, False
            elif self._thoughts.open.startswith(rest):
                return thought, ""
            else:
                said, self._text, self._over = rest if self._any else self._text, "", True
                return thought, said

    def _take(self, length: int) -> str:
        thought, self._text = self._text[:length], self._text[length:]
        thought = thought if self._begun else thought.lstrip()
        self._begun = self._begun or bool(thought)
        return thought

    def close(self) -> tuple[str, str]:
        rest, self._text, self._over = self._text, "", True
        if self._inside:
            return rest.rstrip() if self._begun else rest.strip(), ""
        return "", rest.lstrip() if self._any else rest


class _Calls:
    """Finds calls between texts."""

    def __init__(self, format: Format, tools: Sequence[Tool], parallel: bool, ids: Callable[[], str]) -> None:
        self.count = 0
        self.done = False
        self._openers = format.calls.openers
        self._markers = tuple(self._openers)
        self._schemas = {tool.name: tool.parameters for tool in tools}
        self._parallel = parallel
        self._ids = ids
        self._text = ""
        self._body: Body | None = None
        self._opened = ""
        """What opened the body: text, if it is no call after all."""
        self._called = False
        """A call has just ended: white space after it belongs to nothing."""
        self._said = False
        """Something other than white space was said before: then a bare JSON object is no call."""

    def feed(self, text: str) -> list[Delta]:
        self._text += text
        deltas: list[Delta] = []
        while not self.done:
            if not (self._outside(deltas) if self._body is None else self._inside(self._body, deltas)):
                break
        return deltas

    def close(self) -> list[Delta]:
        deltas: list[Delta] = []
        if self._body is not None and not self.done:
            self._parts(self._body.close(), deltas)
            self._text = self._body.text
        if not self.done:
            self._tell(self._text.lstrip() if self._called else self._text, deltas)
        self._text = ""
        return deltas

    def _outside(self, deltas: list[Delta]) -> bool:
        if self._called:
            self._text = self._text.lstrip()
            self._called = not self._text
        if not self._said and (bare := self._bare()) is not None:
            return bare
        hit = find(self._text, self._markers)
        if hit is None:
            keep = len(self._text) - held(self._text, self._markers)
            # White space before a call belongs to neither.
            keep = len(self._text[:keep].rstrip())
            self._tell(self._text[:keep], deltas)
            self._text = self._text[keep:]
            return False
        at, marker = hit
        before = self._text[:at].rstrip()
        self._tell(before, deltas)
        end = at + len(marker)
        self._open(self._openers[marker](self._schemas), end, self._text[len(before) : end])
        return True

    def _bare(self) -> bool | None:
        """Small models forget the markers: an answer that begins with a call in JSON is that call.

        None: it does not begin so. False: it is too early to tell."""
        rest = self._text.lstrip()
        if rest.startswith("{"):
            self._open(JSONCalls(known=self._schemas), 0, "")
            return True
        if (fence := _FENCE.match(rest)) is not None:
            before = len(self._text) - len(rest) + fence.end()
            self._open(JSONCalls(("```",), known=self._schemas), before, self._text[:before])
            return True
        return False if _MAYBE_FENCE.match(rest) else None

    def _open(self, body: Body, length: int, opener: str) -> None:
        self._body, self._opened, self._text = body, opener, self._text[length:]

    def _inside(self, body: Body, deltas: list[Delta]) -> bool:
        text, self._text = self._text, ""
        self._parts(body.feed(text), deltas)
        if not body.done:
            return False
        self._body, self._text = None, body.text
        return True

    def _parts(self, parts: list[Part], deltas: list[Delta]) -> None:
        for part in parts:
            if self.done:
                return
            if isinstance(part, Begin):
                self._opened, self._said, self._called = "", True, True
                deltas.append(ToolCallDelta(self.count, "", part.id or self._ids(), part.name))
                self.count += 1
            elif isinstance(part, Arguments):
                self._add(part.text, deltas)
            elif isinstance(part, NoCall):
                self._tell(self._opened + part.text, deltas)
                self._opened, self._called = "", False
            else:
                self.done = not self._parallel

    def _add(self, text: str, deltas: list[Delta]) -> None:
        last = deltas[-1] if deltas else None
        if isinstance(last, ToolCallDelta) and last.call == self.count - 1:
            last.arguments += text
        else:
            deltas.append(ToolCallDelta(self.count - 1, text))

    def _tell(self, text: str, deltas: list[Delta]) -> None:
        if text:
            self._said = True
            deltas.append(TextDelta(text))
