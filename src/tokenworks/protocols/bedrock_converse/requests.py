"""Request -> the body of Converse. The model stands in the path."""

import re
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Image, Message, Part, Role, Text, Thinking, Tool, ToolCall, ToolMode
from tokenworks.core.messages import ToolResult as Result
from tokenworks.core.request import Conversation, Reasoning, Request
from tokenworks.protocols.foreign import known_tools
from tokenworks.protocols.openai_chat.signed_calls import unsigned_id
from tokenworks.protocols.proofs import is_claudes, to_claude

NAME = "bedrock_converse"
BROKEN_ARGUMENTS = "INVALID_JSON"

_ENCODE = msgspec.json.Encoder().encode
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")
_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/jpg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 4096, "high": 16384, "xhigh": 32768, "max": 32768}
_THREE = {"minimal": "low", "xhigh": "high", "max": "high", "medium": "medium"}
"""Efforts of families that know three."""
_NOT_HERE: dict[str, Any] = {
    "min_p": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "ignore_eos": False,
    "min_tokens": 0,
    "seed": None,
}
"""Sampling that has no place here, with the value that means nothing."""


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    task, sampling = request.task, request.sampling
    if not isinstance(task, Conversation):
        raise InvalidRequest("This model only takes chat requests.", param="model")
    _refuse_what_has_no_place(request)
    inference = {
        "maxTokens": request.max_output_tokens,
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "stopSequences": sampling.stop or None,
    }
    body = {
        "messages": _messages(request, task.messages),
        "system": _system(request, task.messages),
        "inferenceConfig": {name: value for name, value in inference.items() if value is not None},
        "toolConfig": _tools(task),
        "outputConfig": _output(request),
        "additionalModelRequestFields": _of_the_family(request, model) or None,
        "serviceTier": {"type": request.service_tier} if request.service_tier in ("priority", "flex") else None,
        "requestMetadata": request.metadata or None,
    }
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


def _system(request: Request, messages: list[Message]) -> list[Any]:
    parts = [part for message in messages if message.role is Role.SYSTEM for part in message.parts]
    return [block for part in parts for block in _blocks(request, part)]


def _messages(request: Request, messages: list[Message]) -> list[dict[str, Any]]:
    """Turns that alternate, each call followed by its result."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role is Role.SYSTEM:
            continue
        role = "assistant" if message.role is Role.ASSISTANT else "user"
        content = [block for part in message.parts for block in _blocks(request, part)]
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += content
        elif content:
            turns.append({"role": role, "content": content})
    if not turns:
        raise InvalidRequest("This model needs a message that is not of the system.", param="messages")
    return turns


def _blocks(request: Request, part: Part) -> list[Any]:
    """A part, and after it the mark up to which the prompt is to be cached."""
    block = _block(request, part)
    ttl = getattr(part, "cache_ttl", None)
    if block is None or ttl is None:
        return [] if block is None else [block]
    return [block, _cache_point(ttl)]


def _cache_point(ttl: str) -> dict[str, Any]:
    return {"cachePoint": {"type": "default"} | ({"ttl": ttl} if ttl != "5m" else {})}


def _block(request: Request, part: Part) -> Any:
    match part:
        case Text():
            return {"text": part.text} if part.text else None
        case Image():
            return {"image": _image(part)}
        case ToolCall():
            call = {"toolUseId": _id(part.id), "name": part.name, "input": _input(part.arguments)}
            return {"toolUse": call}
        case Result():
            content = [_block(request, one) for one in part.content]
            status = "error" if part.is_error else "success"
            return {"toolResult": {"toolUseId": _id(part.call_id), "content": content, "status": status}}
        case Thinking(encrypted=str() as data) if is_claudes(data):
            return {"reasoningContent": {"redactedContent": to_claude(data)}}
        case Thinking(signature=str()):
            return {"reasoningContent": {"reasoningText": {"text": part.text, "signature": part.signature}}}
        case Thinking():
            if "messages.reasoning_content" not in request.ignored:
                request.ignored.append("messages.reasoning_content")
            return None
        case Foreign():
            raise InvalidRequest(f"This model cannot read content of type '{part.type}'.", param="messages")


def _id(text: str) -> str:
    """Other protocols' ids may hold any character."""
    return _NO_ID.sub("_", unsigned_id(text))[:64]


def _image(image: Image) -> dict[str, Any]:
    if image.data is None or image.media_type not in _FORMATS:
        known = ", ".join(sorted(_FORMATS))
        raise InvalidRequest(
            f"This model reads images that the request holds itself, as data URLs of {known}.", param="messages"
        )
    return {"format": _FORMATS[image.media_type], "source": {"bytes": image.data}}


def _input(arguments: str) -> msgspec.Raw:
    """The arguments as the model wrote them: an object, which this protocol wants, or wrapped in one."""
    text = arguments.strip() or "{}"
    try:
        _OBJECT.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return msgspec.Raw(_ENCODE({BROKEN_ARGUMENTS: arguments}))
    return msgspec.Raw(text.encode())


def _tools(task: Conversation) -> dict[str, Any] | None:
    choice = task.tool_choice
    talked = any(isinstance(part, ToolCall | Result) for message in task.messages for part in message.parts)
    if choice is not None and choice.mode is ToolMode.NONE and choice.name is None:
        if talked:
            raise InvalidRequest("This model cannot be kept from calling tools once it did.", param="tool_choice")
        return None
    if not task.tools:
        return None
    if task.parallel_tool_calls is False:
        raise InvalidRequest("This model cannot be kept to one call at a time.", param="parallel_tool_calls")
    config: dict[str, Any] = {"tools": [spec for tool in known_tools(task.tools) for spec in _tool(tool)]}
    if choice is not None and choice.name is not None:
        config["toolChoice"] = {"tool": {"name": choice.name}}
    elif choice is not None:
        config["toolChoice"] = {"any": {}} if choice.mode is ToolMode.REQUIRED else {"auto": {}}
    return config


def _tool(tool: Tool) -> list[Any]:
    schema = tool.parameters if "type" in tool.parameters else {"type": "object", **tool.parameters}
    spec: dict[str, Any] = {"name": tool.name, "inputSchema": {"json": schema}}
    if tool.description:
        spec["description"] = tool.description
    if tool.strict is not None:
        spec["strict"] = tool.strict
    return [{"toolSpec": spec}, *([_cache_point(tool.cache_ttl)] if tool.cache_ttl else [])]


def _output(request: Request) -> dict[str, Any] | None:
    wanted = request.response_format
    if wanted is None:
        return None
    schema = {"name": wanted.name or "answer", "schema": _ENCODE(wanted.schema).decode()}
    if wanted.description:
        schema["description"] = wanted.description
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}


def _of_the_family(request: Request, model: str) -> dict[str, Any]:
    """What families of models take beside what all of them do; a family is told by the model's id."""
    fields: dict[str, Any] = {}
    reasoning, top_k = request.reasoning, request.sampling.top_k
    if "claude" in model:
        if top_k is not None:
            fields["top_k"] = top_k
        if reasoning is not None:
            fields |= _thinking(reasoning)
    elif "nova" in model:
        if top_k is not None:
            fields["inferenceConfig"] = {"topK": top_k}
        if reasoning is not None:
            fields["reasoningConfig"] = _nova(reasoning)
    elif top_k is not None:
        raise InvalidRequest("This model does not take 'top_k'.", param="top_k")
    elif reasoning is not None and "gpt-oss" in model and reasoning.effort not in (None, "none"):
        fields["reasoning_effort"] = _THREE.get(reasoning.effort or "medium", reasoning.effort)
    return fields


def _thinking(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.enabled is False or reasoning.effort == "none":
        return {"thinking": {"type": "disabled"}}
    budget = reasoning.budget_tokens or _BUDGETS.get(reasoning.effort or "")
    return {"thinking": {"type": "enabled", "budget_tokens": budget} if budget else {"type": "adaptive"}}


def _nova(reasoning: Reasoning) -> dict[str, Any]:
    if reasoning.enabled is False or reasoning.effort == "none":
        return {"type": "disabled"}
    return {"type": "enabled", "maxReasoningEffort": _THREE.get(reasoning.effort or "medium", reasoning.effort)}
