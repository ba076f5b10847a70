"""Requests of chat completions: the caller's body -> Request, and Request -> an upstream's body."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import (
    Foreign,
    Image,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from tokenworks.core.request import Conversation, Grammar, Reasoning, Request, ResponseFormat, Sampling
from tokenworks.protocols.openai_chat import audio
from tokenworks.protocols.openai_chat import types as wire
from tokenworks.protocols.openai_chat.grammars import asked_grammar
from tokenworks.protocols.openai_chat.reasoning import read_thoughts
from tokenworks.protocols.validation import decode, members_of, named, present, top_level

NAME = "openai_chat"
PLACEHOLDERS = {"tgi": "tgi_chat", "dummy": NAME}
"""What clients of Hugging Face send in place of a model: the default one answers, in the dialect that each reads."""
MEASURED = "fireworks_chat"
"""The dialect that `perf_metrics_in_response` asks for, on whatever path."""

_AUDIO = msgspec.json.Decoder(wire.AudioPart)
_DECODER = msgspec.json.Decoder(wire.ChatRequest)
_KIND = msgspec.json.Decoder(wire.Tagged)
_PART: msgspec.json.Decoder[wire.KnownPart] = msgspec.json.Decoder(wire.KnownPart)
_FORMAT: msgspec.json.Decoder[wire.KnownFormat] = msgspec.json.Decoder(wire.KnownFormat)
_TOOL_KIND = msgspec.json.Decoder(wire.ToolKind)
_TOOL = msgspec.json.Decoder(wire.ToolDefinition)
_ENCODE = msgspec.json.Encoder().encode

WITHOUT_EFFECT = frozenset({"user", "metadata"})
"""Read, but they change nothing about the answer."""
KEPT = frozenset({"store", "metadata"})
"""What becomes of an answer that is stored: here, so that no upstream is told."""
HONOURED = frozenset(wire.ChatRequest.__struct_fields__) - WITHOUT_EFFECT
OWN = frozenset(
    {"audio", "web_search_options", "functions", "documents", "search_settings", "safety_model", "compliance"}
)
"""Without them the answer would be another one, or be given under other promises: refused where they cannot be kept."""
TEMPLATE_ARGUMENTS = "chat_template_kwargs"
TOO_LONG = "context_length_exceeded_behavior"
"""error, or truncate: the answer is cut to the room that the prompt leaves. Without it the engine does as it likes."""
_MODES = {mode.value: mode for mode in ToolMode} | {"any": ToolMode.REQUIRED}
TIERS = frozenset({"auto", "default", "flex", "scale", "priority", "fast"})


def decode_request(body: bytes) -> Request:
    wired = decode(_DECODER, body)
    if wired.max_tokens and wired.max_completion_tokens and wired.max_tokens != wired.max_completion_tokens:
        raise InvalidRequest("Give either 'max_tokens' or 'max_completion_tokens', not both.", param="max_tokens")
    if wired.top_logprobs and not wired.logprobs:
        raise InvalidRequest("'top_logprobs' needs 'logprobs' to be true.", param="top_logprobs")
    if wired.stream_options and not wired.stream:
        raise InvalidRequest("'stream_options' needs 'stream' to be true.", param="stream_options")
    members = members_of(body)
    response_format, unusual_format = _response_format(wired)
    grammar = asked_grammar(wired)
    unusual_logprobs = wired.logprobs is not None and not isinstance(wired.logprobs, bool)
    return Request(
        model="" if wired.model in PLACEHOLDERS else wired.model,
        task=_conversation(wired),
        protocol=MEASURED if wired.perf_metrics_in_response else PLACEHOLDERS.get(wired.model, NAME),
        body=body,
        sampling=_sampling(wired),
        response_format=response_format,
        grammar=grammar,
        max_output_tokens=wired.max_completion_tokens or wired.max_tokens,
        n=wired.n or 1,
        logprobs=bool(wired.logprobs),
        top_logprobs=wired.top_logprobs or (int(wired.logprobs or 0) if unusual_logprobs else 0),
        stream=bool(wired.stream),
        include_usage=bool(wired.stream_options and wired.stream_options.include_usage),
        reasoning=_reasoning(wired),
        service_tier=wired.service_tier,
        user=wired.user,
        metadata=wired.metadata or {},
        salt=wired.prompt_cache_isolation_key or wired.cache_salt,
        ignored=named(members, members.keys() - HONOURED - OWN - (KEPT if wired.store else frozenset())),
        own=_own_parameters(wired, members, response_format, grammar),
        timed=bool(wired.perf_metrics_in_response),
        keep=bool(wired.store),
        unusual=unusual_format
        or unusual_logprobs
        or wired.service_tier is not None
        or _unusual_choice(wired.tool_choice),
        options={name: bytes(members[name]) for name in (TEMPLATE_ARGUMENTS, TOO_LONG) if name in members},
    )


def _own_parameters(
    wired: wire.ChatRequest,
    members: dict[str, msgspec.Raw],
    response_format: ResponseFormat | None,
    grammar: Grammar | None,
) -> list[str]:
    own = named(members, members.keys() & OWN)
    if wired.modalities is not None and wired.modalities != ["text"]:
        own.append("modalities")
    if response_format is None and present(wired.response_format) and _kind(wired) != "text":
        own.append("response_format")
    if wired.structured_outputs is not None and grammar is None:
        own.append("structured_outputs")
    if grammar is not None and grammar.param not in own:
        own.append(grammar.param)
    return own


def _reasoning(wired: wire.ChatRequest) -> Reasoning | None:
    if wired.reasoning_effort is not None:
        return Reasoning(effort=wired.reasoning_effort)
    if (given := wired.reasoning) is not None:
        return Reasoning(given.effort, given.max_tokens, given.enabled)
    if (thinking := wired.thinking) is not None:
        return Reasoning(budget_tokens=thinking.budget_tokens, enabled=thinking.type != "disabled")
    return None


def _effort(reasoning: Reasoning | None) -> str | None:
    """One word for it, which is all that this protocol has."""
    if reasoning is None or reasoning.effort is not None:
        return reasoning.effort if reasoning else None
    if reasoning.enabled is False:
        return "none"
    budget = reasoning.budget_tokens
    return None if budget is None else "low" if budget <= 2048 else "medium" if budget <= 8192 else "high"


def _kind(wired: wire.ChatRequest) -> str:
    return decode(_KIND, wired.response_format, "response_format").type


def _sampling(wired: wire.ChatRequest) -> Sampling:
    stop = [wired.stop] if isinstance(wired.stop, str) else wired.stop or []
    if len(stop) > 16 or any(not text for text in stop):
        raise InvalidRequest("'stop' takes at most 16 strings, none of them empty.", param="stop")
    return Sampling(
        temperature=wired.temperature,
        top_p=wired.top_p,
        top_k=wired.top_k,
        min_p=wired.min_p,
        typical_p=wired.typical_p,
        frequency_penalty=wired.frequency_penalty,
        presence_penalty=wired.presence_penalty,
        repetition_penalty=wired.repetition_penalty,
        seed=wired.seed,
        stop=stop,
        logit_bias=wired.logit_bias or {},
        ignore_eos=bool(wired.ignore_eos),
        min_tokens=wired.min_tokens,
    )


def _response_format(wired: wire.ChatRequest) -> tuple[ResponseFormat | None, bool]:
    """(the format, whether it is asked for in an unusual way); none for what only some hosts know, such as grammars."""
    if not present(wired.response_format) or _kind(wired) not in ("json_object", "json_schema"):
        return None, False
    match decode(_FORMAT, wired.response_format, "response_format"):
        case wire.JsonObjectFormat(value=value, schema=schema):
            return ResponseFormat(schema=value or schema), bool(value or schema)
        case wire.JsonSchemaFormat(json_schema=given):
            return ResponseFormat(given.schema, given.name, given.strict, given.description), False
        case _:
            return None, False


def _conversation(wired: wire.ChatRequest) -> Conversation:
    tools = [_tool(raw, f"tools[{index}]") for index, raw in enumerate(wired.tools or [])]
    choice, tools = _tool_choice(wired.tool_choice, tools)
    return Conversation(
        messages=[_message(message, f"messages[{index}]") for index, message in enumerate(wired.messages)],
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=wired.parallel_tool_calls,
    )


def _tool(raw: msgspec.Raw, where: str) -> Tool | Foreign:
    kind = decode(_TOOL_KIND, raw, where).type
    if kind != "function":
        return Foreign(NAME, kind, bytes(raw))
    function = decode(_TOOL, raw, where).function
    return Tool(function.name, function.description, function.parameters or {}, function.strict)


def _tool_choice(
    choice: str | wire.ChosenTool | None, tools: list[Tool | Foreign]
) -> tuple[ToolChoice | None, list[Tool | Foreign]]:
    """(the choice, the tools that it allows)"""
    if choice is None:
        return None, tools
    names = {tool.name for tool in tools if isinstance(tool, Tool)}
    if isinstance(choice, str) and choice not in _MODES:
        _require_known([choice], names)
        return ToolChoice(ToolMode.REQUIRED, choice), tools
    if isinstance(choice, str):
        mode = _MODES[choice]
        if mode is ToolMode.REQUIRED and not tools:
            raise InvalidRequest("'tool_choice' is 'required' but 'tools' is empty.", param="tool_choice")
        return ToolChoice(mode), tools
    if choice.function is not None:
        _require_known([choice.function.name], names)
        return ToolChoice(ToolMode.REQUIRED, choice.function.name), tools
    if choice.allowed_tools is None:
        raise InvalidRequest("'tool_choice' names no function.", param="tool_choice")
    allowed = [tool.function.name for tool in choice.allowed_tools.tools]
    _require_known(allowed, names)
    return ToolChoice(ToolMode(choice.allowed_tools.mode)), [
        tool for tool in tools if isinstance(tool, Tool) and tool.name in allowed
    ]


def _unusual_choice(choice: str | wire.ChosenTool | None) -> bool:
    if isinstance(choice, wire.ChosenTool):
        return choice.allowed_tools is not None
    return choice is not None and choice not in list(ToolMode)


def _require_known(chosen: list[str], names: set[str]) -> None:
    for name in chosen:
        if name not in names:
            raise InvalidRequest(
                f"'tool_choice' names the function {name!r}, which is not in 'tools'.", param="tool_choice"
            )


def _message(message: wire.ChatMessage, where: str) -> Message:
    match message:
        case wire.ToolMessage():
            parts = _parts(message.content, f"{where}.content")
            content = [part for part in parts if isinstance(part, Text | Image | Foreign)]
            return Message(Role.TOOL, [ToolResult(message.tool_call_id, content)])
        case wire.AssistantMessage():
            return Message(Role.ASSISTANT, _assistant_parts(message, where), message.name)
        case wire.UserMessage():
            role = Role.USER
        case _:
            role = Role.SYSTEM
    if message.content is None:
        raise InvalidRequest(f"'{where}.content' must not be null.", param=f"{where}.content")
    return Message(role, _parts(message.content, f"{where}.content"), message.name)


def _assistant_parts(message: wire.AssistantMessage, where: str) -> list[Part]:
    parts: list[Part] = []
    if thoughts := read_thoughts(message.reasoning_details, where):
        parts += thoughts
    elif reasoning := message.reasoning_content or message.reasoning:
        parts.append(Thinking(reasoning))
    parts += _parts(message.content, f"{where}.content")
    if message.refusal:
        parts.append(Text(message.refusal))
    parts += [ToolCall(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or []]
    if not parts and message.content is None:
        raise InvalidRequest(
            f"'{where}' has neither 'content' nor 'tool_calls'; an assistant message needs one.", param=where
        )
    return parts


def _parts(content: wire.Content, where: str) -> list[Part]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    return [_part(raw, f"{where}[{index}]") for index, raw in enumerate(content)]


def _part(raw: msgspec.Raw, where: str) -> Part:
    kind = decode(_KIND, raw, where).type
    if kind == "input_audio":
        sound, place = decode(_AUDIO, raw, where).input_audio, f"{where}.input_audio"
        return Foreign(NAME, kind, bytes(raw), audio_ms=audio.milliseconds(sound.data, sound.format, place))
    if kind not in ("text", "image_url", "refusal"):
        return Foreign(NAME, kind, bytes(raw))
    match decode(_PART, raw, where):
        case wire.TextPart(text=text) | wire.RefusalPart(refusal=text):
            return Text(text)
        case wire.ImagePart(image_url=image):
            return _image(image, f"{where}.image_url.url")


def _image(image: wire.ImageUrl, where: str) -> Image:
    if image.url.startswith("data:"):
        media_type, _, data = image.url[5:].partition(";base64,")
        return Image(data=data, media_type=media_type, detail=image.detail, where=where)
    return Image(url=image.url, detail=image.detail, where=where)


def rewrite_request(request: Request, model: str) -> bytes:
    """The caller's body under the upstream's model name; a stream always asks for its usage."""
    members: dict[str, Any] = dict(top_level(request.body))
    members["model"] = model
    if request.keep:
        members = {name: value for name, value in members.items() if name not in KEPT}
    if request.stream:
        options = msgspec.json.decode(members["stream_options"]) if "stream_options" in members else None
        members["stream_options"] = {**(options or {}), "include_usage": True}
    if request.response_format is not None and request.response_format.name is None:
        members["response_format"] = _encode_format(request.response_format)
    return _ENCODE(members)


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    if not isinstance(request.task, Conversation):
        raise InvalidRequest("This model only takes chat requests.", param="model")
    task, sampling = request.task, request.sampling
    body: dict[str, Any] = {
        "model": model,
        "messages": [wired for message in task.messages for wired in _encode_message(message)],
        "max_tokens": request.max_output_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
        "logit_bias": sampling.logit_bias or None,
        "ignore_eos": sampling.ignore_eos or None,
        "min_tokens": sampling.min_tokens,
        "n": request.n if request.n > 1 else None,
        "logprobs": request.logprobs or None,
        "top_logprobs": request.top_logprobs or None,
        "tools": [_encode_tool(tool) for tool in task.tools] or None,
        "tool_choice": _encode_tool_choice(task.tool_choice),
        "parallel_tool_calls": task.parallel_tool_calls,
        "response_format": _encode_format(request.response_format),
        "reasoning_effort": _effort(request.reasoning),
        "service_tier": request.service_tier if request.service_tier in TIERS else None,
        TEMPLATE_ARGUMENTS: _raw(request.options.get(TEMPLATE_ARGUMENTS)),
        "stream": stream or None,
        "stream_options": {"include_usage": True} if stream else None,
        "user": request.user,
        "metadata": None if request.keep else request.metadata or None,
    }
    return _ENCODE({name: value for name, value in body.items() if value is not None})


def _raw(given: bytes | None) -> msgspec.Raw | None:
    return None if given is None else msgspec.Raw(given)


def _encode_message(message: Message) -> list[dict[str, Any]]:
    """One wire message, but one for each tool result."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    wired: list[dict[str, Any]] = [
        {"role": "tool", "tool_call_id": result.call_id, "content": _encode_content(result.content)}
        for result in results
    ]
    shown = [part for part in message.parts if isinstance(part, Text | Image | Foreign)]
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    thoughts = [part.text for part in message.parts if isinstance(part, Thinking) and part.text]
    if shown or calls or thoughts or not results:
        body: dict[str, Any] = {"role": message.role.value, "content": _encode_content(shown) if shown else None}
        if message.role is not Role.ASSISTANT and not shown:
            body["content"] = ""
        if calls:
            body["tool_calls"] = [
                {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
                for call in calls
            ]
        if thoughts:
            body["reasoning_content"] = "".join(thoughts)
        if message.name:
            body["name"] = message.name
        wired.append(body)
    return wired


def _encode_content(parts: list[Text | Image | Foreign]) -> str | list[Any]:
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_encode_part(part) for part in parts]


def _encode_part(part: Text | Image | Foreign) -> Any:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            return _encode_image(part)
        case Foreign():
            return _own(part, "messages")


def _own(part: Foreign, param: str) -> msgspec.Raw:
    if part.protocol != NAME:
        raise InvalidRequest(f"This model cannot take '{part.type}' in '{param}'.", param=param)
    return msgspec.Raw(part.raw)


def _encode_image(image: Image) -> dict[str, Any]:
    url = image.url or f"data:{image.media_type};base64,{image.data}"
    return {"type": "image_url", "image_url": {"url": url, **({"detail": image.detail} if image.detail else {})}}


def _encode_tool(tool: Tool | Foreign) -> Any:
    if isinstance(tool, Foreign):
        return _own(tool, "tools")
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {"type": "function", "function": {name: value for name, value in function.items() if value is not None}}


def _encode_tool_choice(choice: ToolChoice | None) -> Any:
    if choice is None:
        return None
    if choice.name is not None:
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode.value


def _encode_format(given: ResponseFormat | None) -> dict[str, Any] | None:
    if given is None:
        return None
    if given.schema is None and given.name is None:
        return {"type": "json_object"}
    described = {
        "name": given.name or "answer",
        "description": given.description,
        "schema": given.schema,
        "strict": given.strict,
    }
    return {"type": "json_schema", "json_schema": {k: v for k, v in described.items() if v is not None}}
