"""Request -> the body of chat or embed."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Foreign, Image, Message, Part, Refusal, Role, Text, Thinking, ToolCall, ToolMode
from tokenworks.core.messages import ToolResult as Result
from tokenworks.core.request import Conversation, Embeddings, Request
from tokenworks.protocols.foreign import known_parts, known_tools

NAME = "cohere"
INPUT_TYPE = "search_document"
"""What a text to embed is: callers of other protocols cannot say it, and texts that are compared are documents."""

_ENCODE = msgspec.json.Encoder().encode
_NOT_HERE: dict[str, Any] = {
    "min_p": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "ignore_eos": False,
    "min_tokens": 0,
}
"""Sampling that has no place here, with the value that means nothing."""


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    match request.task:
        case Conversation():
            body = _chat(request, request.task, model, stream=stream)
        case Embeddings():
            body = _embed(request.task, model)
        case _:
            raise InvalidRequest("This model takes chat requests and texts to embed.", param="model")
    return _ENCODE({name: value for name, value in body.items() if value is not None})


def _embed(task: Embeddings, model: str) -> dict[str, Any]:
    if not all(isinstance(text, str) for text in task.inputs):
        raise InvalidRequest("This model embeds texts, not token ids.", param="input")
    return {
        "model": model,
        "texts": task.inputs,
        "input_type": INPUT_TYPE,
        "embedding_types": ["float"],
        "output_dimension": task.dimensions,
        "truncate": "NONE",
    }


def _chat(request: Request, task: Conversation, model: str, *, stream: bool) -> dict[str, Any]:
    sampling = request.sampling
    for name, nothing in _NOT_HERE.items():
        if getattr(sampling, name) not in (None, nothing):
            raise InvalidRequest(f"This model does not take '{name}'.", param=name)
    if request.n > 1:
        raise InvalidRequest("This model gives one choice; 'n' must be 1.", param="n")
    if request.logprobs:
        raise InvalidRequest("This model does not tell log probabilities.", param="logprobs")
    return {
        "model": model,
        "messages": [written for message in task.messages for written in _message(request, message)],
        "stream": stream,
        "max_tokens": request.max_output_tokens,
        "temperature": sampling.temperature,
        "p": sampling.top_p,
        "k": sampling.top_k,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "stop_sequences": sampling.stop or None,
        "response_format": _response_format(request),
        "thinking": _thinking(request),
        **_tools(task),
    }


def _message(request: Request, message: Message) -> list[dict[str, Any]]:
    """Results of tools are messages of their own."""
    results = [part for part in message.parts if isinstance(part, Result)]
    written = [_result(result) for result in results]
    rest = [part for part in message.parts if not isinstance(part, Result)]
    if rest:
        role = "user" if message.role is Role.TOOL else message.role.value
        calls = [_call(part) for part in rest if isinstance(part, ToolCall)]
        content = [block for part in rest if (block := _block(request, part)) is not None]
        only = content[0]["text"] if len(content) == 1 and content[0]["type"] == "text" else content
        body: dict[str, Any] = {"role": role}
        if content:
            body["content"] = only
        if calls:
            body["tool_calls"] = calls
        if len(body) > 1:
            written.append(body)
    return written


def _block(request: Request, part: Part) -> dict[str, Any] | None:
    match part:
        case Refusal() | Text():
            return {"type": "text", "text": part.text} if part.text else None
        case Image():
            url = part.url or f"data:{part.media_type};base64,{part.data}"
            return {"type": "image_url", "image_url": {"url": url, **({"detail": part.detail} if part.detail else {})}}
        case Thinking(text=str() as text) if text:
            return {"type": "thinking", "thinking": text}
        case Thinking():
            if "messages.reasoning_content" not in request.ignored:
                request.ignored.append("messages.reasoning_content")
            return None
        case Foreign():
            raise InvalidRequest(f"This model cannot read content of type '{part.type}'.", param="messages")
        case _:
            return None


def _call(part: ToolCall) -> dict[str, Any]:
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments or "{}"}}


def _result(result: Result) -> dict[str, Any]:
    texts = [part for part in known_parts(result.content) if isinstance(part, Text)]
    if len(texts) != len(result.content):
        raise InvalidRequest("This model reads results of tools as text only.", param="messages")
    return {"role": "tool", "tool_call_id": result.call_id, "content": "".join(text.text for text in texts)}


def _tools(task: Conversation) -> dict[str, Any]:
    if not task.tools:
        return {}
    tools = known_tools(task.tools)
    choice = task.tool_choice
    if task.parallel_tool_calls is False:
        raise InvalidRequest("This model cannot be kept to one call at a time.", param="parallel_tool_calls")
    if choice is not None and choice.name is not None:
        tools = [tool for tool in tools if tool.name == choice.name]
    functions = [
        {"name": tool.name, "description": tool.description or "", "parameters": tool.parameters or {"type": "object"}}
        for tool in tools
    ]
    forced = {ToolMode.REQUIRED: "REQUIRED", ToolMode.NONE: "NONE"}
    return {
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": None if choice is None else "REQUIRED" if choice.name else forced.get(choice.mode),
        "strict_tools": True if any(tool.strict for tool in tools) else None,
    }


def _response_format(request: Request) -> dict[str, Any] | None:
    wanted = request.response_format
    if wanted is None:
        return None
    return {"type": "json_object", **({"json_schema": wanted.schema} if wanted.schema is not None else {})}


def _thinking(request: Request) -> dict[str, Any] | None:
    reasoning = request.reasoning
    if reasoning is None:
        return None
    if reasoning.enabled is False or reasoning.effort == "none":
        return {"type": "disabled"}
    budget = {"token_budget": reasoning.budget_tokens} if reasoning.budget_tokens is not None else {}
    return {"type": "enabled", **budget}
