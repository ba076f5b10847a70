"""Requests of the Responses API: the caller's body -> Request, and Request -> an upstream's body.

`options` of a decoded request: what the answer echoes and what stored responses need, under the protocol's own names
(`instructions`, `previous_response_id`, `store`, `background`, `include`, `truncation`, `max_tool_calls`,
`prompt_cache_key`, `safety_identifier`), and `verbosity`, `summary`, `tool_choice` (as JSON) and `tools` (all of them,
also those that `tool_choice` does not allow).
"""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Message, Role, Text, Thinking, Tool, ToolChoice, ToolMode
from tokenworks.core.request import Conversation, Reasoning, Request, ResponseFormat, Sampling
from tokenworks.protocols.openai_chat.signed_calls import MARK
from tokenworks.protocols.openai_responses import types as wire
from tokenworks.protocols.openai_responses.items import NAME, SIGNATURE, own, read_items, write_items
from tokenworks.protocols.proofs import REDACTED
from tokenworks.protocols.validation import decode, members_of, present, top_level

_DECODER = msgspec.json.Decoder(wire.ResponsesRequest)
_TOOL_KIND = msgspec.json.Decoder(wire.Tagged)
_TOOL = msgspec.json.Decoder(wire.FunctionTool)
_ENCODE = msgspec.json.Encoder().encode

WITHOUT_EFFECT = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "stream_options"})
"""Read, but they change nothing about the answer."""
HONOURED = frozenset(wire.ResponsesRequest.__struct_fields__) - WITHOUT_EFFECT

HELD = ("previous_response_id", "conversation", "prompt")
"""Members that stand for content somebody else holds. Without it the answer would be another one, so they are content
that only this protocol knows: any other codec refuses them by name."""

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
_ECHOED = (
    "instructions",
    "previous_response_id",
    "store",
    "background",
    "include",
    "truncation",
    "max_tool_calls",
    "prompt_cache_key",
    "safety_identifier",
)
_NOT_HERE = ("stop", "logit_bias", "top_k", "min_p", "repetition_penalty")


def decode_request(body: bytes) -> Request:
    wired = decode(_DECODER, body)
    members = members_of(body)
    tools = [_tool(raw, f"tools[{index}]") for index, raw in enumerate(wired.tools or [])]
    text, reasoning = wired.text or wire.TextOptions(), wired.reasoning
    top_logprobs = wired.top_logprobs or 0
    return Request(
        model=wired.model,
        task=_conversation(wired, members, tools),
        protocol=NAME,
        body=body,
        sampling=Sampling(
            temperature=wired.temperature,
            top_p=wired.top_p,
            frequency_penalty=wired.frequency_penalty,
            presence_penalty=wired.presence_penalty,
            ignore_eos=bool(wired.ignore_eos),
            min_tokens=wired.min_tokens,
        ),
        response_format=_response_format(text),
        max_output_tokens=wired.max_output_tokens,
        logprobs=top_logprobs > 0 or LOGPROBS in (wired.include or ()),
        top_logprobs=top_logprobs,
        stream=bool(wired.stream),
        reasoning=Reasoning(effort=reasoning.effort) if reasoning and reasoning.effort else None,
        service_tier=wired.service_tier,
        user=wired.user,
        metadata=wired.metadata or {},
        ignored=_ignored(wired, members),
        options=_options(wired, members, tools),
    )


def _options(
    wired: wire.ResponsesRequest, members: dict[str, msgspec.Raw], tools: list[Tool | Foreign]
) -> dict[str, Any]:
    options = {name: value for name in _ECHOED if (value := getattr(wired, name)) is not None}
    if tools:
        options["tools"] = tools
    if isinstance(wired.tool_choice, wire.ChosenTool):
        options["tool_choice"] = bytes(members["tool_choice"])
    if wired.text and wired.text.verbosity:
        options["verbosity"] = wired.text.verbosity
    if wired.reasoning and wired.reasoning.summary:
        options["summary"] = wired.reasoning.summary
    return options


def _ignored(wired: wire.ResponsesRequest, members: dict[str, msgspec.Raw]) -> list[str]:
    ignored = list(members.keys() - HONOURED)
    if wired.truncation == "auto":
        ignored.append("truncation")
    if wired.text and wired.text.verbosity:
        ignored.append("text.verbosity")
    if wired.reasoning and wired.reasoning.summary:
        ignored.append("reasoning.summary")
    return sorted(ignored)


def _conversation(
    wired: wire.ResponsesRequest, members: dict[str, msgspec.Raw], tools: list[Tool | Foreign]
) -> Conversation:
    messages = [Message(Role.SYSTEM, [Text(wired.instructions)])] if wired.instructions is not None else []
    held = [Foreign(NAME, name, bytes(members[name])) for name in HELD if name in members and present(members[name])]
    if held:
        messages.append(Message(Role.SYSTEM, [*held]))
    if isinstance(wired.input, str):
        messages.append(Message(Role.USER, [Text(wired.input)]))
    else:
        messages += read_items(wired.input or [])
    if not wired.input and not held:
        problem = "Missing required parameter: 'input'." if wired.input is None else "'input' must not be empty."
        raise InvalidRequest(problem, param="input", code="missing_required_parameter")
    choice, usable = _tool_choice(wired.tool_choice, tools)
    return Conversation(messages, usable, choice, wired.parallel_tool_calls)


def _tool(raw: msgspec.Raw, where: str) -> Tool | Foreign:
    kind = decode(_TOOL_KIND, raw, where).type
    if kind is None:
        raise InvalidRequest(f"Missing required parameter: '{where}.type'.", param=f"{where}.type")
    if kind != "function":
        return Foreign(NAME, kind, bytes(raw))
    tool = decode(_TOOL, raw, where)
    return Tool(tool.name, tool.description, tool.parameters or {}, tool.strict)


def _tool_choice(
    choice: str | wire.ChosenTool | None, tools: list[Tool | Foreign]
) -> tuple[ToolChoice | None, list[Tool | Foreign]]:
    """(the choice, the tools that it allows)"""
    if choice is None:
        return None, tools
    names = {tool.name for tool in tools if isinstance(tool, Tool)}
    only_functions = len(names) == len(tools)
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise InvalidRequest("'tool_choice' is 'required' but 'tools' is empty.", param="tool_choice")
        return ToolChoice(ToolMode(choice)), tools
    if choice.type == "allowed_tools":
        allowed = {tool.name for tool in choice.tools or () if tool.type == "function"}
        usable = [tool for tool in tools if isinstance(tool, Foreign) or tool.name in allowed]
        if only_functions and len(usable) != len(allowed):
            _refuse_choice(", ".join(sorted(repr(name) for name in allowed - names)))
        return ToolChoice(ToolMode(choice.mode or "auto")), usable
    if choice.type == "function":
        if only_functions and choice.name not in names:
            _refuse_choice(repr(choice.name))
        return ToolChoice(ToolMode.REQUIRED, choice.name), tools
    if only_functions:
        _refuse_choice(f"of type {choice.type!r}")
    return ToolChoice(ToolMode.REQUIRED), tools


def _refuse_choice(what: str) -> None:
    raise InvalidRequest(f"'tool_choice' names a tool that is not in 'tools': {what}.", param="tool_choice")


def _response_format(text: wire.TextOptions) -> ResponseFormat | None:
    match text.format:
        case wire.JsonObjectFormat():
            return ResponseFormat()
        case wire.JsonSchemaFormat() as given:
            return ResponseFormat(given.schema, given.name, given.strict, given.description)
        case _:
            return None


def rewrite_request(request: Request, model: str) -> bytes:
    """The caller's body under the upstream's model name, and without what is ours to do: storing it, and running in
    the background."""
    if any(mark.encode() in request.body for mark in (SIGNATURE, MARK, REDACTED)):
        return encode_request(request, model, stream=request.stream)
    members: dict[str, Any] = dict(top_level(request.body))
    members["model"] = model
    members["store"] = False
    members.pop("background", None)
    if _needs_proof(request):
        members["include"] = [*request.options.get("include", ()), ENCRYPTED]
    return _ENCODE(members)


def _needs_proof(request: Request) -> bool:
    """Whether the reasoning must come with what lets its provider read it again: only so can a response that we store
    be continued. Models that do not reason refuse to be asked for it."""
    options = request.options
    if request.protocol != NAME or not options.get("store", True) or ENCRYPTED in options.get("include", ()):
        return False
    messages = request.task.messages if isinstance(request.task, Conversation) else []
    return request.reasoning is not None or any(
        isinstance(part, Thinking) for message in messages for part in message.parts
    )


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    task, sampling = request.task, request.sampling
    if not isinstance(task, Conversation):
        raise InvalidRequest("This model only takes chat requests.", param="model")
    _refuse_what_has_no_place(request)
    instructions, held, messages = _split(task.messages)
    ours = request.protocol == NAME
    options = request.options if ours else {}
    tools, choice = task.tools, _write_tool_choice(task.tool_choice)
    if task.tool_choice is not None and "tool_choice" in options:
        tools, choice = options["tools"], msgspec.Raw(options["tool_choice"])
    body: dict[str, Any] = {
        "model": model,
        "instructions": instructions,
        **held,
        "input": write_items(messages, ours=ours),
        "tools": [write_tool(tool, strict=ours) for tool in tools] or None,
        "tool_choice": choice,
        "parallel_tool_calls": task.parallel_tool_calls,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": options.get("max_tool_calls"),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "ignore_eos": sampling.ignore_eos or None,
        "min_tokens": sampling.min_tokens,
        "top_logprobs": request.top_logprobs or None,
        "include": _include(request, options) or None,
        "text": _text(request, options),
        "reasoning": _reasoning(request, options),
        "truncation": options.get("truncation"),
        "store": False,
        "stream": stream or None,
        "service_tier": request.service_tier if ours else None,
        "user": request.user,
        "metadata": request.metadata or None,
        "prompt_cache_key": options.get("prompt_cache_key"),
        "safety_identifier": options.get("safety_identifier"),
    }
    return _ENCODE({name: value for name, value in body.items() if value is not None})


def _refuse_what_has_no_place(request: Request) -> None:
    for name in _NOT_HERE:
        if getattr(request.sampling, name) not in (None, [], {}):
            raise InvalidRequest(f"This model does not take '{name}'.", param=name)
    if request.n > 1:
        raise InvalidRequest("This model gives one choice; 'n' must be 1.", param="n")
    if request.sampling.seed is not None and "seed" not in request.ignored:
        request.ignored.append("seed")


def _split(messages: list[Message]) -> tuple[str | None, dict[str, Any], list[Message]]:
    """(instructions, members that stand for content held elsewhere, the other messages)"""
    instructions, held, rest = None, {}, list(messages)
    if rest and rest[0].role is Role.SYSTEM and len(rest[0].parts) == 1:
        only = rest[0].parts[0]
        if type(only) is Text:
            instructions = only.text
            rest.pop(0)
    for part in rest[0].parts if rest and rest[0].role is Role.SYSTEM else ():
        if isinstance(part, Foreign) and part.protocol == NAME and part.type in HELD:
            held[part.type] = msgspec.Raw(part.raw)
    return instructions, held, rest[1:] if held else rest


def write_tool(tool: Tool | Foreign, *, strict: bool) -> Any:
    """`strict`: whether leaving it open means the same here as where the tool comes from."""
    if isinstance(tool, Foreign):
        return own(tool, "tools")
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict if tool.strict is not None or strict else False,
    }


def _write_tool_choice(choice: ToolChoice | None) -> Any:
    if choice is None:
        return None
    return {"type": "function", "name": choice.name} if choice.name is not None else choice.mode.value


def _include(request: Request, options: dict[str, Any]) -> list[str]:
    include = list(options.get("include", ()))
    if request.logprobs and LOGPROBS not in include:
        include.append(LOGPROBS)
    if (request.protocol != NAME and request.reasoning is not None) or _needs_proof(request):
        include.append(ENCRYPTED)
    return include


def write_format(given: ResponseFormat | None) -> dict[str, Any]:
    if given is None:
        return {"type": "text"}
    if given.schema is None and given.name is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": given.name or "answer",
        "description": given.description,
        "schema": given.schema or {},
        "strict": given.strict,
    }


def _text(request: Request, options: dict[str, Any]) -> dict[str, Any] | None:
    verbosity = options.get("verbosity")
    if request.response_format is None and verbosity is None:
        return None
    return {"format": write_format(request.response_format), **({"verbosity": verbosity} if verbosity else {})}


def _reasoning(request: Request, options: dict[str, Any]) -> dict[str, Any] | None:
    effort = request.reasoning.effort if request.reasoning else None
    given = {"effort": effort, "summary": options.get("summary")}
    return {name: value for name, value in given.items() if value is not None} or None
