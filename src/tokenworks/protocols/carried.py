"""What a protocol can carry of a request, found by asking its encoder, so that what gets lost on the way is reported.

An encoder refuses by name what it cannot carry and what the answer depends on; the rest it leaves out, and this tells.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Message, Part, Role, Text, Thinking, Tool
from tokenworks.core.request import Conversation, Prompts, Reasoning, Request, ResponseFormat
from tokenworks.protocols.base import Codec
from tokenworks.protocols.proofs import REDACTED, is_claudes

_SAMPLING: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 7,
    "min_p": 0.5,
    "typical_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "repetition_penalty": 1.5,
    "seed": 7,
    "stop": ["x"],
    "logit_bias": {"7": 1.0},
    "ignore_eos": True,
    "min_tokens": 7,
}
_MEMBERS: dict[str, Any] = {
    "response_format": ResponseFormat({"type": "object"}, "x"),
    "max_output_tokens": 7,
    "n": 2,
    "logprobs": True,
    "reasoning": Reasoning(effort="low"),
    "service_tier": "flex",
    "user": "x",
    "metadata": {"x": "x"},
    "salt": "x",
}
_TASKS: dict[type, Any] = {
    Conversation: Conversation([Message(Role.USER, [Text("x")])], [Tool("x")]),
    Prompts: Prompts(["x"]),
}
_WIRE_NAMES = {
    "max_output_tokens": ("max_completion_tokens", "max_tokens", "max_new_tokens"),
    "stop": ("stop_sequences",),
    "reasoning": ("reasoning_effort", "thinking", "output_config"),
    "user": ("metadata",),
    "salt": ("prompt_cache_isolation_key", "cache_salt"),
    "parallel_tool_calls": ("disable_parallel_tool_use",),
    "encrypted_content": ("redacted_thinking",),
}
"""Other names than ours under which protocols ask for it."""


def _said(part: Part, phase: str | None = None) -> Message:
    return Message(Role.ASSISTANT, [part, Text("x")], phase=phase)


def lost(request: Request, upstream: Codec) -> list[str]:
    """Parameters, by the caller's names, that do not reach an upstream of this protocol."""
    return [
        wire_name(field, request) for field in _asked(request) if field not in carried(upstream, type(request.task))
    ]


def wire_name(field: str, request: Request) -> str:
    """What the caller calls it: the first of its known names that the body has."""
    names = (*_WIRE_NAMES.get(field, ()), field)
    return next((name for name in names if f'"{name}"'.encode() in request.body), names[-1])


def carried(upstream: Codec, task: type) -> frozenset[str]:
    """Fields of a request that change what this protocol's encoder writes, or that it refuses by name."""
    known = _KNOWN.get((upstream.name, task))
    if known is None:
        known = _KNOWN[upstream.name, task] = _find(upstream, task)
    return known


_KNOWN: dict[tuple[str, type], frozenset[str]] = {}
"""Asked for once."""


def _find(upstream: Codec, task: type) -> frozenset[str]:
    if task not in _TASKS:
        return frozenset((*_SAMPLING, *_MEMBERS))
    plain = Request(model="x", task=_TASKS[task], protocol="")
    before = _encoded(upstream, plain)
    found = {name for name, probe in _probes(plain) if (after := _encoded(upstream, probe)) is None or after != before}
    found |= {name for name, (bare, probe) in _STATE.items() if _turn(upstream, bare) != _turn(upstream, probe)}
    return frozenset(found)


_STATE: dict[str, tuple[Message, Message]] = {
    "signature": (_said(Thinking("x")), _said(Thinking("x", signature="x"))),
    "encrypted_content": (_said(Thinking()), _said(Thinking(encrypted="x"))),
    "redacted_thinking": (_said(Thinking()), _said(Thinking(encrypted=f"{REDACTED}x"))),
    "phase": (_said(Text("x")), _said(Text("x"), phase="x")),
}
"""What providers have clients send back of earlier turns: a message without it, and with it."""


def _turn(upstream: Codec, message: Message) -> bytes | None:
    hello = Message(Role.USER, [Text("x")])
    return _encoded(upstream, Request(model="x", task=Conversation([hello, message, hello]), protocol=""))


def _probes(plain: Request) -> list[tuple[str, Request]]:
    probes = [
        (name, replace(plain, sampling=replace(plain.sampling, **{name: value}))) for name, value in _SAMPLING.items()
    ]
    probes += [(name, replace(plain, **{name: value})) for name, value in _MEMBERS.items()]
    if isinstance(plain.task, Conversation):
        cached = [Message(Role.USER, [Text("x", cache_ttl="5m")])]
        probes.append(("parallel_tool_calls", replace(plain, task=replace(plain.task, parallel_tool_calls=False))))
        probes.append(("cache_control", replace(plain, task=replace(plain.task, messages=cached))))
    return probes


def _encoded(upstream: Codec, probe: Request) -> bytes | None:
    try:
        return upstream.encode_request(probe, "x", stream=False)
    except InvalidRequest:
        return None


def _asked(request: Request) -> list[str]:
    """Fields that the caller set to something."""
    asked = [name for name in _SAMPLING if getattr(request.sampling, name) not in (None, [], {}, False)]
    asked += [name for name in _MEMBERS if getattr(request, name) not in (None, {}, False) and _differs(name, request)]
    if isinstance(request.task, Conversation):
        if request.task.parallel_tool_calls is False:
            asked.append("parallel_tool_calls")
        asked += _state_of(request.task.messages)
    return asked


def _state_of(messages: list[Message]) -> list[str]:
    parts = [part for message in messages for part in message.parts]
    thoughts = [part for part in parts if isinstance(part, Thinking)]
    there = {
        "cache_control": any(getattr(part, "cache_ttl", None) for part in parts),
        "signature": any(thought.signature for thought in thoughts),
        "encrypted_content": any(thought.encrypted and not is_claudes(thought.encrypted) for thought in thoughts),
        "redacted_thinking": any(is_claudes(thought.encrypted) for thought in thoughts),
        "phase": any(message.phase for message in messages),
    }
    return [name for name, is_there in there.items() if is_there]


def _differs(name: str, request: Request) -> bool:
    usual = _USUAL.get(name)
    return usual is None or not usual(request)


_USUAL: dict[str, Callable[[Request], bool]] = {
    "n": lambda request: request.n == 1,
    "service_tier": lambda request: request.service_tier in ("auto", "default"),
}
"""What everybody does without being told."""
