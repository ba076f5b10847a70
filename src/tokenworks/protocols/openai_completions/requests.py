"""Requests of text completions: the caller's body -> Request, and Request -> an upstream's body."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Prompts, Request, Sampling
from tokenworks.protocols.openai_chat.requests import TOO_LONG
from tokenworks.protocols.openai_chat.requests import rewrite_request as rewrite_request
from tokenworks.protocols.openai_completions import types as wire
from tokenworks.protocols.validation import decode, members_of, named, present

NAME = "openai_completions"
DEFAULT_MAX_TOKENS = 16
"""The protocol's own default."""
MEASURED = "fireworks_completions"
"""The dialect that `perf_metrics_in_response` asks for, on whatever path."""

_IMAGES = msgspec.json.Decoder(list[str | list[str]])
_DECODER = msgspec.json.Decoder(wire.CompletionRequest)
_ENCODE = msgspec.json.Encoder().encode

WITHOUT_EFFECT = frozenset({"user"})
HONOURED = frozenset(wire.CompletionRequest.__struct_fields__) - WITHOUT_EFFECT
OWN = frozenset({"images", "response_format", "safety_model"})
"""Without them the answer would be another one, or be given under other promises: refused where they cannot be kept."""


def decode_request(body: bytes) -> Request:
    wired = decode(_DECODER, body)
    if wired.best_of is not None and wired.best_of != (wired.n or 1):
        raise InvalidRequest("'best_of' other than 'n' is not supported.", param="best_of")
    if wired.stream_options and not wired.stream:
        raise InvalidRequest("'stream_options' needs 'stream' to be true.", param="stream_options")
    stop = [wired.stop] if isinstance(wired.stop, str) else wired.stop or []
    if len(stop) > 16 or any(not text for text in stop):
        raise InvalidRequest("'stop' takes at most 16 strings, none of them empty.", param="stop")
    members = members_of(body)
    return Request(
        model=wired.model,
        task=Prompts(_prompts(wired.prompt), echo=bool(wired.echo), suffix=wired.suffix),
        protocol=MEASURED if wired.perf_metrics_in_response else NAME,
        body=body,
        sampling=Sampling(
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
        ),
        max_output_tokens=wired.max_completion_tokens or wired.max_tokens or DEFAULT_MAX_TOKENS,
        n=wired.n or 1,
        logprobs=wired.logprobs is not None and wired.logprobs is not False,
        top_logprobs=int(wired.logprobs or 0),
        stream=bool(wired.stream),
        include_usage=bool(wired.stream_options and wired.stream_options.include_usage),
        options={TOO_LONG: bytes(members[TOO_LONG])} if TOO_LONG in members else {},
        service_tier=wired.service_tier,
        user=wired.user,
        salt=wired.prompt_cache_isolation_key or wired.cache_salt,
        ignored=named(members, members.keys() - HONOURED - OWN),
        own=named(members, members.keys() & OWN),
        images=_images(members.get("images")),
        unusual=isinstance(wired.logprobs, bool) or wired.max_completion_tokens is not None,
        timed=bool(wired.perf_metrics_in_response),
    )


def _images(given: msgspec.Raw | None) -> int:
    """How many there are: in a list, or in one for each prompt."""
    if given is None or not present(given):
        return 0
    lists = decode(_IMAGES, given, "images")
    return sum(len(each) if isinstance(each, list) else 1 for each in lists)


def _prompts(prompt: str | list[str | list[int] | int]) -> list[str | list[int]]:
    """Text, texts, token ids, or lists of token ids -> one entry per prompt."""
    if isinstance(prompt, str):
        return [prompt]
    ids = [item for item in prompt if isinstance(item, int)]
    if not prompt or (ids and len(ids) != len(prompt)):
        raise InvalidRequest("'prompt' must be text, a list of texts, or token ids, and not empty.", param="prompt")
    return [ids] if ids else [item for item in prompt if not isinstance(item, int)]


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    if not isinstance(request.task, Prompts):
        raise InvalidRequest("This model only takes text completions.", param="model")
    if request.response_format is not None:
        raise InvalidRequest("This model's text completions cannot be held to a grammar.", param="grammar")
    task, sampling = request.task, request.sampling
    body: dict[str, Any] = {
        "model": model,
        "prompt": task.prompts[0] if len(task.prompts) == 1 else task.prompts,
        "echo": task.echo or None,
        "suffix": task.suffix,
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
        "logprobs": request.top_logprobs if request.logprobs else None,
        "stream": stream or None,
        "stream_options": {"include_usage": True} if stream else None,
        "user": request.user,
    }
    return _ENCODE({name: value for name, value in body.items() if value is not None})
