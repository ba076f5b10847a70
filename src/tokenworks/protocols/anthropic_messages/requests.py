"""Requests of Messages: the caller's body -> Request, and Request -> an upstream's body.

`options` of a decoded request hold, as JSON, the members that only this protocol knows, and `thinking` and
`output_config`, of which the neutral form keeps less than they say. Under `beta` are the previews asked for by header.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Message, Role, Tool, ToolChoice, ToolMode, ToolResult
from tokenworks.core.request import Conversation, Reasoning, Request, ResponseFormat, Sampling
from tokenworks.protocols.anthropic_messages import types as wire
from tokenworks.protocols.anthropic_messages.blocks import NAME, Writer, cached, own, read_content, read_message, ttl
from tokenworks.protocols.proofs import FOREIGN
from tokenworks.protocols.validation import decode, members_of, named, present, top_level

DEFAULT_MAX_TOKENS = 8192
"""For callers who name no maximum; this protocol has to."""

_DECODER = msgspec.json.Decoder(wire.MessagesRequest)
_TOOL_KIND = msgspec.json.Decoder(wire.ToolKind)
_TOOL = msgspec.json.Decoder(wire.CustomTool)
OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ENCODE = msgspec.json.Encoder().encode

WITHOUT_EFFECT = frozenset({"metadata", "service_tier"})
"""Read, but they change nothing about the answer."""
HONOURED = frozenset(wire.MessagesRequest.__struct_fields__) - WITHOUT_EFFECT
UNTHREADED = "thread_unsupported_request"
"""The client's own helpers go on without threads when they hear it. Were `thread` ignored, they would send the last
message only, and lose the conversation."""
OWN = frozenset({"container", "mcp_servers", "inference_geo"})
"""Without them the answer would be another one, or be given under other promises: refused where they cannot be kept."""
_KEPT = frozenset({"thinking", "output_config"})
_NEUTRAL = frozenset(wire.MessagesRequest.__struct_fields__) - _KEPT

_NOT_HERE: dict[str, Any] = {
    "min_p": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "ignore_eos": False,
    "min_tokens": 0,
}
"""Sampling that has no place here, with the value that means nothing."""


def decode_request(body: bytes) -> Request:
    request = decode_countable(body)
    if request.max_output_tokens is None:
        raise InvalidRequest(
            "Missing required parameter: 'max_tokens'.", param="max_tokens", code="missing_required_parameter"
        )
    return request


def decode_countable(body: bytes) -> Request:
    """A request that may leave `max_tokens` out, because its tokens are only counted."""
    wired = decode(_DECODER, body)
    members = members_of(body)
    if present(members.get("thread", msgspec.Raw())):
        raise InvalidRequest(
            "Conversations are not kept here between requests: leave 'thread' out and send every message.",
            param="thread",
            code=UNTHREADED,
        )
    task = _conversation(wired)
    return Request(
        model=wired.model,
        task=task,
        protocol=NAME,
        body=body,
        sampling=Sampling(
            temperature=wired.temperature, top_p=wired.top_p, top_k=wired.top_k, stop=wired.stop_sequences or []
        ),
        response_format=_response_format(wired),
        max_output_tokens=wired.max_tokens,
        stream=bool(wired.stream),
        reasoning=_reasoning(wired),
        service_tier=wired.service_tier,
        user=wired.metadata.user_id if wired.metadata else None,
        ignored=_ignored(wired, members, task),
        own=[name for name in named(members, members.keys() & OWN) if bytes(members[name]) != b'"global"'],
        options={name: bytes(members[name]) for name in members.keys() - _NEUTRAL},
    )


def _conversation(wired: wire.MessagesRequest) -> Conversation:
    messages = [read_message(message, f"messages[{index}]") for index, message in enumerate(wired.messages)]
    if wired.system:
        messages.insert(0, Message(Role.SYSTEM, read_content(wired.system, "system")))
    tools = [_tool(raw, f"tools[{index}]") for index, raw in enumerate(wired.tools or [])]
    choice = wired.tool_choice
    serial = choice.disable_parallel_tool_use if choice else None
    return Conversation(messages, tools, _tool_choice(choice, tools), None if serial is None else not serial)


def _tool(raw: msgspec.Raw, where: str) -> Tool | Foreign:
    kind = decode(_TOOL_KIND, raw, where).type
    if kind not in (None, "custom"):
        return Foreign(NAME, kind, bytes(raw))
    tool = decode(_TOOL, raw, where)
    return Tool(tool.name, tool.description, tool.input_schema, tool.strict, ttl(tool.cache_control))


def _tool_choice(choice: wire.ToolChoice | None, tools: list[Tool | Foreign]) -> ToolChoice | None:
    if choice is None:
        return None
    if choice.type in ("any", "tool") and not tools:
        raise InvalidRequest(f"'tool_choice' is '{choice.type}' but 'tools' is empty.", param="tool_choice")
    match choice.type:
        case "tool":
            names = {tool.name for tool in tools if isinstance(tool, Tool)}
            if len(names) == len(tools) and choice.name not in names:
                raise InvalidRequest(
                    f"'tool_choice' names the tool {choice.name!r}, which is not in 'tools'.", param="tool_choice"
                )
            return ToolChoice(ToolMode.REQUIRED, choice.name)
        case "any":
            return ToolChoice(ToolMode.REQUIRED)
        case mode:
            return ToolChoice(ToolMode(mode))


def _response_format(wired: wire.MessagesRequest) -> ResponseFormat | None:
    given = (wired.output_config and wired.output_config.format) or wired.output_format
    return ResponseFormat(schema=given.schema) if given else None


def _reasoning(wired: wire.MessagesRequest) -> Reasoning | None:
    thinking, effort = wired.thinking, wired.output_config.effort if wired.output_config else None
    if thinking is None:
        return Reasoning(effort=effort) if effort else None
    if thinking.type == "enabled" and thinking.budget_tokens is None:
        raise InvalidRequest(
            "Missing required parameter: 'thinking.budget_tokens'.",
            param="thinking.budget_tokens",
            code="missing_required_parameter",
        )
    return Reasoning(effort, thinking.budget_tokens, thinking.type != "disabled")


def _ignored(wired: wire.MessagesRequest, members: Mapping[str, msgspec.Raw], task: Conversation) -> list[str]:
    """What another protocol's upstream will not honour."""
    ignored = set(named(members, members.keys() - HONOURED - OWN))
    effort = wired.output_config.effort if wired.output_config else None
    if wired.thinking is not None and wired.thinking.type in ("adaptive", "between_tools") and effort is None:
        ignored.add("thinking")
    if any(isinstance(part, ToolResult) and part.is_error for message in task.messages for part in message.parts):
        ignored.add("is_error")
    if wired.output_config is not None and present(wired.output_config.task_budget):
        ignored.add("output_config.task_budget")
    return sorted(ignored)


def rewrite_request(request: Request, model: str) -> bytes:
    """The caller's own body under the upstream's model name."""
    members: dict[str, Any] = dict(top_level(request.body))
    members["model"] = model
    if b'"signature"' in request.body or FOREIGN.encode() in request.body:
        members["messages"] = _without_unsigned(members["messages"])
    return _ENCODE(members)


def _without_unsigned(messages: msgspec.Raw) -> list[dict[str, Any]]:
    """Thoughts that an upstream of another protocol had, which nobody signed or somebody else encrypted: this one would
    refuse them."""
    kept: list[dict[str, Any]] = []
    for message in OBJECTS.decode(messages):
        content = bytes(message["content"])
        if content.startswith(b"[") and (b'"signature"' in content or FOREIGN.encode() in content):
            blocks = [block for block in OBJECTS.decode(content) if not _is_unsigned(block)]
            if not blocks:
                continue
            kept.append(message | {"content": msgspec.Raw(_ENCODE(blocks))})
        else:
            kept.append(message)
    return kept


def _is_unsigned(block: dict[str, msgspec.Raw]) -> bool:
    if bytes(block["type"]) == b'"redacted_thinking"':
        return bytes(block["data"]).startswith(b'"' + FOREIGN.encode())
    return bytes(block["type"]) == b'"thinking"' and bytes(block.get("signature", b"")) in (b"", b'""', b"null")


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    task, sampling = request.task, request.sampling
    if not isinstance(task, Conversation):
        raise InvalidRequest("This model only takes chat requests.", param="model")
    ours = request.protocol == NAME
    if not ours:
        _refuse_what_has_no_place(request)
    writer = Writer(request)
    system, messages = writer.system(task.messages)
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_output_tokens or DEFAULT_MAX_TOKENS,
        "system": system,
        "messages": writer.messages(messages),
        "tools": [_write_tool(tool) for tool in task.tools] or None,
        "tool_choice": _write_tool_choice(task),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop_sequences": sampling.stop or None,
        "stream": stream or None,
        "metadata": {"user_id": request.user} if request.user else None,
        "service_tier": request.service_tier if ours else None,
        **({name: msgspec.Raw(raw) for name, raw in request.options.items() if name != "beta"} if ours else {}),
    }
    if "output_config" not in body:
        body["output_config"] = _output_config(request) or None
    if not ours:
        body["thinking"] = _thinking(request.reasoning)
    return _ENCODE({name: value for name, value in body.items() if value is not None})


def _refuse_what_has_no_place(request: Request) -> None:
    for name, nothing in _NOT_HERE.items():
        if getattr(request.sampling, name) not in (None, nothing):
            raise InvalidRequest(f"This model does not take '{name}'.", param=name)
    if request.n > 1:
        raise InvalidRequest("This model gives one choice; 'n' must be 1.", param="n")
    if request.logprobs:
        raise InvalidRequest("This model does not tell log probabilities.", param="logprobs")
    if request.response_format is not None and request.response_format.schema is None:
        raise InvalidRequest("This model answers in JSON only by a schema: use 'json_schema'.", param="response_format")


def _write_tool(tool: Tool | Foreign) -> Any:
    if isinstance(tool, Foreign):
        return own(tool, "tools")
    body = {
        "name": tool.name,
        "description": tool.description,
        "input_schema": tool.parameters if "type" in tool.parameters else {"type": "object", **tool.parameters},
        "strict": tool.strict,
    }
    return {name: value for name, value in body.items() if value is not None} | cached(tool.cache_ttl)


def _write_tool_choice(task: Conversation) -> dict[str, Any] | None:
    if not task.tools:
        return None
    choice = task.tool_choice
    serial = {} if task.parallel_tool_calls is None else {"disable_parallel_tool_use": not task.parallel_tool_calls}
    if choice is None:
        return {"type": "auto", **serial} if serial else None
    if choice.name is not None:
        return {"type": "tool", "name": choice.name, **serial}
    if choice.mode is ToolMode.NONE:
        return {"type": "none"}
    return {"type": "any" if choice.mode is ToolMode.REQUIRED else "auto", **serial}


def _output_config(request: Request) -> dict[str, Any]:
    config: dict[str, Any] = {}
    effort = request.reasoning.effort if request.reasoning else None
    if effort is not None and effort != "none":
        config["effort"] = "low" if effort == "minimal" else effort
    if request.response_format is not None:
        config["format"] = {"type": "json_schema", "schema": request.response_format.schema}
    return config


def _thinking(reasoning: Reasoning | None) -> dict[str, Any] | None:
    if reasoning is None:
        return None
    if reasoning.enabled is False or reasoning.effort == "none":
        return {"type": "disabled"}
    if reasoning.budget_tokens is not None:
        return {"type": "enabled", "budget_tokens": reasoning.budget_tokens}
    return {"type": "adaptive"}
