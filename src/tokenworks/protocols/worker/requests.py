"""Request -> the body of `POST generate`."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Image, Message, Text, Thinking, ToolCall, ToolMode, ToolResult
from tokenworks.core.request import Conversation, Embeddings, Prompts, Reasoning, Request, Rerank
from tokenworks.core.request import Sampling as NeutralSampling
from tokenworks.protocols.foreign import known_parts, known_tools
from tokenworks.protocols.openai_chat.requests import TEMPLATE_ARGUMENTS, TOO_LONG
from tokenworks.protocols.validation import decode
from tokenworks.protocols.worker import types as wire

_PRIORITIES = {"priority": "interactive", "flex": "batch"}
"""Of service tiers, as callers know them; any other is standard."""
_ENCODE = msgspec.json.Encoder().encode
_ARGUMENTS = msgspec.json.Decoder(dict[str, Any])

_BOUNDED = frozenset({"anthropic_messages"})
"""Whose callers must name a maximum, and name one that no window holds when they know none: the answer is cut to the
room that the prompt leaves."""


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    """An answer always streams: `stream` makes no difference."""
    chat = request.task if isinstance(request.task, Conversation) else None
    choice = chat.tool_choice if chat else None
    embed = request.task if isinstance(request.task, Embeddings) else None
    grammar = request.grammar
    rank = request.task if isinstance(request.task, Rerank) else None
    return _ENCODE(
        wire.GenerateRequest(
            model=model,
            messages=tuple(m for message in chat.messages for m in _messages(message)) if chat else None,
            prompts=_prompts(request.task) if isinstance(request.task, Prompts) else None,
            tools=_tools(chat) if chat else (),
            tool_choice=(choice.mode if choice else ToolMode.AUTO).value,
            forced_tool=choice.name if choice else None,
            json=request.response_format is not None,
            json_schema=request.response_format.schema if request.response_format else None,
            regex=grammar.text if grammar and grammar.regex else None,
            grammar=grammar.text if grammar and not grammar.regex else None,
            max_tokens=request.max_output_tokens,
            n=request.n,
            sampling=_sampling(request.sampling),
            logprobs=request.top_logprobs if request.logprobs else None,
            echo=isinstance(request.task, Prompts) and request.task.echo,
            embed=tuple(embed.inputs) if embed else None,
            dimensions=embed.dimensions if embed else None,
            parallel_tool_calls=chat is None or chat.parallel_tool_calls is not False,
            thinking=_thinking(request.reasoning),
            template_arguments=_template_arguments(request),
            truncate=request.protocol in _BOUNDED or request.options.get(TOO_LONG) == b'"truncate"',
            rank=wire.Ranking(rank.query, tuple(rank.documents), rank.top_n) if rank else None,
            tenant=request.tenant,
            salt=request.salt or "",
            priority="batch"
            if request.batch or request.shadow
            else _PRIORITIES.get(request.service_tier or "", "standard"),
            prefixes=tuple(request.prefixes),
            deadline=request.time_left,
        )
    )


def _thinking(reasoning: Reasoning | None) -> bool | None:
    if reasoning is None:
        return None
    return reasoning.enabled is not False and reasoning.effort != "none"


def _template_arguments(request: Request) -> dict[str, Any]:
    """What templates of models with levels of reasoning know as `reasoning_effort`, and what the caller says itself."""
    effort = request.reasoning.effort if request.reasoning else None
    told = {"reasoning_effort": effort} if effort is not None else {}
    given = request.options.get(TEMPLATE_ARGUMENTS)
    return told if given is None else told | decode(_ARGUMENTS, given, TEMPLATE_ARGUMENTS)


def encode_render(request: Request) -> bytes:
    """The body of `POST render`: how a conversation becomes tokens. InvalidRequest when it is none."""
    if not isinstance(request.task, Conversation):
        raise InvalidRequest("This model only renders conversations.", param="messages")
    messages = tuple(wired for message in request.task.messages for wired in _messages(message))
    return _ENCODE(wire.RenderRequest(messages, _tools(request.task)))


def _tools(task: Conversation) -> tuple[wire.Tool, ...]:
    return tuple(
        wire.Tool(tool.name, tool.description, tool.parameters, bool(tool.strict)) for tool in known_tools(task.tools)
    )


def _prompts(task: Prompts) -> tuple[str | list[int], ...]:
    if task.suffix:
        raise InvalidRequest("This model does not fill in the middle: 'suffix' is not supported.", param="suffix")
    return tuple(task.prompts)


def _sampling(given: NeutralSampling) -> wire.Sampling:
    return wire.Sampling(
        temperature=given.temperature,
        top_p=given.top_p,
        top_k=given.top_k,
        min_p=given.min_p,
        typical_p=given.typical_p,
        frequency_penalty=given.frequency_penalty,
        presence_penalty=given.presence_penalty,
        repetition_penalty=given.repetition_penalty,
        seed=given.seed,
        stop=tuple(given.stop),
        logit_bias=given.logit_bias,
        ignore_eos=given.ignore_eos,
        min_tokens=given.min_tokens,
    )


def _messages(message: Message) -> list[wire.Message]:
    """One message, but one for each tool result."""
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    messages = [wire.Message("tool", _text(known_parts(result.content)), call_id=result.call_id) for result in results]
    rest = [part for part in known_parts(message.parts) if not isinstance(part, ToolResult)]
    if rest or not results:
        messages.append(
            wire.Message(
                message.role.value,
                _text([part for part in rest if isinstance(part, Text | Image)]),
                name=message.name,
                reasoning="".join(part.text for part in rest if isinstance(part, Thinking)),
                calls=tuple(wire.Call(p.id, p.name, p.arguments) for p in rest if isinstance(p, ToolCall)),
            )
        )
    return messages


def _text(parts: list[Text | Image]) -> str:
    if any(isinstance(part, Image) for part in parts):
        raise InvalidRequest("This model does not take images.", param="messages")
    return "".join(part.text for part in parts if isinstance(part, Text))
