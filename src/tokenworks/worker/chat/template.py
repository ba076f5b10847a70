"""A chat template and what it can do, found by trying it: templates do not say which roles and tools they know."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import msgspec
from jinja2 import TemplateError

from tokenworks.core.errors import InternalError, InvalidRequest
from tokenworks.protocols.worker.types import Message, Tool
from tokenworks.worker.chat.formats import Format, of_template
from tokenworks.worker.chat.sandbox import Exhausted, RawJSON, Refused, Sandbox
from tokenworks.worker.chat.special import Guard
from tokenworks.worker.chat.wording import (
    after_results,
    described,
    merged,
    offered,
    split_prefix,
    system_as_user,
    with_system,
    written_call,
)

_DECODE = msgspec.json.decode
_SHORT_ID = 9
"""Some templates take no other ids of calls than letters and digits of this length."""
_PROBE_ID = "a" * _SHORT_ID
_PROBE = Tool("probe_function", "probe", {"type": "object", "properties": {}})


class BadTemplate(ValueError):
    """It is no template, or none that renders a conversation; the message says why."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """`pieces` in a row are the prompt; special tokens are special only in those marked True. `thinking`: it has begun
    the model's reasoning."""

    pieces: list[tuple[str, bool]]
    thinking: bool = False

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the template renders by itself; what it does not is told in the messages."""

    system: bool
    tools: bool
    calls: bool
    results: bool
    thinking: bool
    """It can be told not to think."""


class Template:
    """BadTemplate when it cannot be used. `special` are the texts of the model's special tokens."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "", special: Collection[str] = ()) -> None:
        self._sandbox = Sandbox()
        try:
            self._compiled = self._sandbox.compiled(source)
        except TemplateError as error:
            raise BadTemplate(f"the chat template is none: {error}") from error
        self._given = {"bos_token": bos, "eos_token": eos}
        self._guard = Guard(special)
        self._short_ids = "tool_call" in source and f"!= {_SHORT_ID}" in source
        self._no_tools: list[Any] | None = None
        self._text_arguments = False
        self.format: Format = of_template(source)
        self.abilities = self._find_abilities(source)

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        thinking: bool | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """The prompt that the model goes on with: with its answer, or in a last message of its own.

        `thinking` None: as the template likes; False holds also where the template always begins to reason. `arguments`
        are further variables of it. InvalidRequest says in the template's own words why it refuses."""
        messages, prefix = split_prefix(messages)
        values = dict(arguments or {})
        if thinking is None and prefix:
            thinking = False
        if thinking is not None:
            values["enable_thinking"] = thinking
        text = self._rendered(self._told(messages, tools), tools if self.abilities.tools else (), values)
        inside = self._inside_thoughts(text)
        if inside and (prefix or thinking is False) and self.format.thoughts is not None:
            text, inside = f"{text}\n{self.format.thoughts.close}\n\n", False
        return Prompt(self._guard.pieces(text + self._guard.hide(prefix)), inside)

    def _rendered(self, messages: list[Message], tools: Sequence[Tool], values: dict[str, Any]) -> str:
        try:
            try:
                return self._run(messages, tools, values)
            except Refused:
                # Many templates insist that user and assistant take turns, some that nobody speaks after a tool.
                joined = merged(messages)
                try:
                    return self._run(joined, tools, values)
                except Refused:
                    return self._run(after_results(joined), tools, values)
        except Refused as error:
            raise InvalidRequest(f"The model's chat template refuses this: {error}", param="messages") from error
        except Exhausted as error:
            raise InvalidRequest(f"The model's chat template cannot render this: {error}.", param="messages") from error
        except TemplateError as error:
            raise InternalError(f"The model's chat template fails: {error}", code="chat_template_error") from error

    def _run(self, messages: list[Message], tools: Sequence[Tool], values: dict[str, Any]) -> str:
        turned = [self._message(message) for message in messages]
        values = {**self._given, "add_generation_prompt": True, **values}
        offers = [offered(tool) for tool in tools] or self._no_tools
        values |= {"messages": turned, "tools": offers, "xml_tools": offers}
        return self._sandbox.run(self._compiled, values)

    def _message(self, message: Message) -> dict[str, Any]:
        turned: dict[str, Any] = {"role": message.role, "content": self._guard.hide(message.content)}
        if message.name:
            turned["name"] = self._guard.hide(message.name)
        if message.reasoning:
            turned["reasoning_content"] = self._guard.hide(message.reasoning)
        if message.call_id is not None:
            turned["tool_call_id"] = self._id(message.call_id)
        if message.calls:
            turned["tool_calls"] = [
                {
                    "type": "function",
                    "id": self._id(call.id),
                    "function": {"name": self._guard.hide(call.name), "arguments": self._arguments(call.arguments)},
                }
                for call in message.calls
            ]
        return turned

    def _arguments(self, text: str) -> Any:
        """An object, as templates expect it, that is written again as the model wrote it."""
        hidden = self._guard.hide(text)
        if self._text_arguments:
            return hidden
        try:
            values = _DECODE(hidden)
        except (msgspec.DecodeError, UnicodeEncodeError):
            return hidden
        return RawJSON(hidden, values) if isinstance(values, dict) else hidden

    def _id(self, id: str) -> str:
        if not self._short_ids or (len(id) == _SHORT_ID and id.isalnum()):
            return self._guard.hide(id)
        return blake2b(id.encode("utf-8", "replace"), digest_size=8).hexdigest()[:_SHORT_ID]

    def _inside_thoughts(self, text: str) -> bool:
        return self.format.thoughts is not None and text.rstrip().endswith(self.format.thoughts.open)

    def _told(self, messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
        """What the template does not render itself, said in words."""
        told = list(messages)
        if not self.abilities.calls or not self.abilities.results:
            told = [self._in_words(message) for message in told]
        if tools and not self.abilities.tools:
            told = with_system(told, described(tools))
        if not self.abilities.system:
            told = system_as_user(told)
        return told

    def _in_words(self, message: Message) -> Message:
        if message.calls and not self.abilities.calls:
            written = "\n".join(written_call(call.name, call.arguments) for call in message.calls)
            content = f"{message.content}\n{written}" if message.content else written
            return Message(message.role, content, reasoning=message.reasoning)
        if message.role == "tool" and not self.abilities.results:
            return Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
        return message

    def _find_abilities(self, source: str) -> Abilities:
        user = {"role": "user", "content": "probe-user"}
        if "probe-user" not in self._try([user]):
            self._no_tools = []
        if "probe-user" not in (plain := self._try([user])):
            raise BadTemplate(f"the chat template renders no conversation: {self._failure or repr(plain[:200])}")
        arguments = '{"probe": 1}'
        called = self._called(user, RawJSON(arguments, {"probe": 1}))
        if _PROBE.name not in called and arguments in (with_text := self._called(user, arguments)):
            self._text_arguments, called = True, with_text
        native, offers = self.format.native, [offered(_PROBE)]
        off = self._try([user], enable_thinking=False) if "enable_thinking" in source else plain
        return Abilities(
            system="probe-system" in self._try([{"role": "system", "content": "probe-system"}, user]),
            tools=native and _PROBE.name in self._try([user], tools=offers, xml_tools=offers),
            calls=native and _PROBE.name in called,
            results=native and "probe-result" in called,
            thinking=off != self._try([user], enable_thinking=True),
        )

    def _called(self, user: dict[str, Any], arguments: RawJSON | str) -> str:
        call = {"type": "function", "id": _PROBE_ID, "function": {"name": _PROBE.name, "arguments": arguments}}
        said = {"role": "assistant", "content": "", "tool_calls": [call]}
        result = {"role": "tool", "content": "probe-result", "tool_call_id": _PROBE_ID, "name": _PROBE.name}
        return self._try([user, said, result])

    _failure = ""

    def _try(self, messages: list[dict[str, Any]], **values: Any) -> str:
        given = {**self._given, "add_generation_prompt": True, "tools": self._no_tools, "messages": messages} | values
        try:
            return self._sandbox.run(self._compiled, given)
        except (Refused, Exhausted, TemplateError) as error:
            self._failure = str(error)
            return ""
