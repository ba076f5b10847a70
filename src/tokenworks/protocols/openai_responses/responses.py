"""Whole answers of the Responses API: an upstream's body -> events, and events -> the caller's response object."""

from collections.abc import Callable
from typing import Any

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    Started,
    SummaryDelta,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from tokenworks.core.messages import Foreign
from tokenworks.core.request import Conversation, Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.openai_chat import types as chat
from tokenworks.protocols.openai_chat.responses import disjoint, read_logprobs
from tokenworks.protocols.openai_responses import types as wire
from tokenworks.protocols.openai_responses.errors import read_failure
from tokenworks.protocols.openai_responses.items import SIGNATURE, joined_summary
from tokenworks.protocols.openai_responses.output import Output
from tokenworks.protocols.openai_responses.requests import write_format, write_tool
from tokenworks.protocols.openai_responses.told import Told

_RESPONSE = msgspec.json.Decoder(wire.Response)
_KIND = msgspec.json.Decoder(wire.Tagged)
_ITEM = msgspec.json.Decoder(wire.OutputItem)
_ENCODE = msgspec.json.Encoder().encode

_INCOMPLETE = {FinishReason.LENGTH: "max_output_tokens", FinishReason.CONTENT_FILTER: "content_filter"}
ENDED = frozenset({"completed", "complete", "incomplete"})
KNOWN_ITEMS = frozenset({"message", "reasoning", "function_call"})
"""Items of other kinds are the work of tools that only this protocol knows; no other protocol can ask for them."""


def decode_response(body: bytes | msgspec.Raw) -> wire.Response:
    """ValueError when it is not one."""
    try:
        return _RESPONSE.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def decode_item(raw: bytes | msgspec.Raw) -> wire.OutputItem | None:
    """None for an item that has no place in the neutral form. ValueError when it is none."""
    try:
        return _ITEM.decode(raw) if _KIND.decode(raw).type in KNOWN_ITEMS else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def read_response(body: bytes) -> list[Event]:
    response = decode_response(body)
    events: list[Event] = [Started(response.id or "", response.model or "", response.service_tier)]
    if response.status in ("failed", "cancelled"):
        return [*events, Failed(failure(response))]
    if response.status not in ENDED or response.output is None:
        raise ValueError("it is not a finished response")
    calls = 0
    for raw in response.output:
        item = decode_item(raw)
        if item is not None:
            events += read_item(item, calls)
            calls += item.type == "function_call"
    return events + ending(response, called=calls > 0)


def ending(response: wire.Response, *, called: bool) -> list[Event]:
    events: list[Event] = [Finished(finish_reason(response, called=called))]
    if response.usage is not None:
        events.append(UsageReport(read_usage(response.usage)))
    return events


def finish_reason(response: wire.Response, *, called: bool) -> FinishReason:
    if response.status == "incomplete":
        reason = response.incomplete_details.reason if response.incomplete_details else None
        return FinishReason.CONTENT_FILTER if reason == "content_filter" else FinishReason.LENGTH
    return FinishReason.TOOL_CALLS if called else FinishReason.STOP


def failure(response: wire.Response) -> TokenworksError:
    return read_failure(response.error or wire.Failure(message=f"The response was {response.status}."))


def read_item(item: wire.OutputItem, call: int) -> list[Event]:
    """A whole item; `call` is its number when it is a function call."""
    if item.type == "function_call":
        return [ToolCallDelta(call, item.arguments or "", item.call_id, item.name)]
    events: list[Event] = []
    if summary := joined_summary([part.text or "" for part in item.summary or ()]):
        events.append(SummaryDelta(summary))
    for part in item.content or ():
        if item.type == "reasoning":
            events.append(ReasoningDelta(part.text or ""))
        elif part.refusal:
            events.append(RefusalDelta(part.refusal))
        elif part.text:
            events.append(TextDelta(part.text, 0, logprobs(part.logprobs)))
    return events + proof(item)


def proof(item: wire.OutputItem) -> list[Event]:
    """What lets the provider recognise its own reasoning later."""
    if item.type != "reasoning" or not item.encrypted_content:
        return []
    if item.encrypted_content.startswith(SIGNATURE):
        return [ReasoningDelta("", signature=item.encrypted_content[len(SIGNATURE) :])]
    return [ReasoningDelta("", encrypted=item.encrypted_content)]


def logprobs(given: list[chat.TokenLogprob] | None) -> Any:
    """An empty list says that none were asked for."""
    return read_logprobs(chat.ChoiceLogprobs(given)) if given else None


def read_usage(body: wire.UsageBody) -> Usage:
    given, made = body.input_tokens_details or wire.InputDetails(), body.output_tokens_details
    fresh, cached, written = disjoint(body.input_tokens, given.cached_tokens, given.cache_write_tokens)
    kept = given.cache_write_tokens_details
    return Usage(
        input=fresh,
        cached_input=cached,
        cache_write=written,
        output=body.output_tokens,
        reasoning=(made.reasoning_tokens or 0) if made else 0,
        cache_write_1h=min((kept.ttl_12h_tokens or 0) if kept else 0, written),
    )


def encode_usage(usage: Usage) -> dict[str, Any]:
    details: dict[str, Any] = {"cached_tokens": usage.cached_input, "cache_write_tokens": usage.cache_write}
    if long := usage.cache_write_1h:
        details["cache_write_tokens_details"] = {
            "ttl_30m_tokens": usage.cache_write - long,
            "ttl_12h_tokens": long,
        }
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": details,
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.total,
    }


_OURS = frozenset({"id", "store", "background", "previous_response_id"})


class Fold:
    """A response as its events go by. `emit` gets the stream events that tell of its output."""

    def __init__(
        self, request: Request, response_id: str, created: int, emit: Callable[[str, dict[str, Any]], None]
    ) -> None:
        self.output = Output(response_id.removeprefix("resp_"), emit)
        self._unchanging = _unchanging(request) | {"id": response_id, "created_at": created}
        self._model = request.model
        self._finish = FinishReason.STOP
        self._usage = Usage()

    def go_on(self, told: Told) -> None:
        """With a response that another began; whose it is, and what the caller asked of us, stays ours."""
        known = {name: value for name, value in told.response.items() if name in self._unchanging and name not in _OURS}
        self._unchanging |= known
        self._model = told.response.get("model") or self._model
        self.output.go_on(told.items)

    def add(self, event: Event) -> None:
        match event:
            case Started():
                self._model = event.model or self._model
            case UsageReport():
                self._usage = event.usage
            case Finished(index=0):
                self._finish = event.reason
            case _:
                self.output.add(event)

    def begun(self, status: str = "in_progress") -> dict[str, Any]:
        return self._resource(status, usage=None)

    def finished(self) -> dict[str, Any]:
        """Closes what is open; complete only when the model came to its end."""
        reason = _INCOMPLETE.get(self._finish)
        self.output.finish(complete=reason is None)
        if reason is None:
            return self._resource("completed", usage=encode_usage(self._usage))
        details = {"reason": reason}
        return self._resource("incomplete", usage=encode_usage(self._usage), incomplete_details=details)

    def failed(self, error: TokenworksError) -> dict[str, Any]:
        return self._resource("failed", usage=None, error={"code": error.code, "message": error.message})

    def _resource(self, status: str, **members: Any) -> dict[str, Any]:
        output = self.output.snapshot("incomplete" if status == "failed" else "in_progress")
        return self._unchanging | {"status": status, "model": self._model, "output": output} | members


def _unchanging(request: Request) -> dict[str, Any]:
    """What a response repeats of its request: every member of the schema, also those that are null."""
    task, sampling, options = request.task, request.sampling, request.options
    chat_task = task if isinstance(task, Conversation) else Conversation([])
    choice, verbosity = chat_task.tool_choice, options.get("verbosity")
    named = None if choice is None or choice.name is None else {"type": "function", "name": choice.name}
    mode = "auto" if choice is None else choice.mode.value
    return {
        "object": "response",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": options.get("instructions"),
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": options.get("max_tool_calls"),
        "parallel_tool_calls": chat_task.parallel_tool_calls is not False,
        "previous_response_id": options.get("previous_response_id"),
        "reasoning": {
            "effort": request.reasoning.effort if request.reasoning else None,
            "summary": options.get("summary"),
        },
        "store": options.get("store", True),
        "background": options.get("background", False),
        "temperature": 1.0 if sampling.temperature is None else sampling.temperature,
        "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
        "presence_penalty": sampling.presence_penalty or 0.0,
        "frequency_penalty": sampling.frequency_penalty or 0.0,
        "top_logprobs": request.top_logprobs,
        "text": {"format": write_format(request.response_format), **({"verbosity": verbosity} if verbosity else {})},
        "tool_choice": one_line(options["tool_choice"]) if "tool_choice" in options else named or mode,
        "tools": [
            one_line(tool.raw) if isinstance(tool, Foreign) else write_tool(tool, strict=True)
            for tool in options.get("tools", ())
        ],
        "truncation": options.get("truncation", "disabled"),
        "user": request.user,
        "metadata": request.metadata,
        "service_tier": "default",
        "safety_identifier": options.get("safety_identifier"),
        "prompt_cache_key": options.get("prompt_cache_key"),
        "usage": None,
    }


def one_line(raw: bytes) -> msgspec.Raw:
    """JSON of the caller's own writing, fit for a line of a stream."""
    return msgspec.Raw(msgspec.json.format(raw, indent=-1))


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    fold = Fold(request, response_id, created, lambda kind, members: None)
    for event in events:
        fold.add(event)
    return _ENCODE(fold.finished())
