"""Requests of TGI: the caller's body -> Request, and Request -> an upstream's body."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Grammar, Prompts, Request, ResponseFormat, Sampling
from tokenworks.protocols.tgi import types as wire
from tokenworks.protocols.validation import decode, members_of, top_level

NAME = "tgi"
DEFAULT_MAX_NEW_TOKENS = 20
"""The protocol's own default."""

_DECODER = msgspec.json.Decoder(wire.GenerateRequest)
_SCHEMA: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])
_ENCODE = msgspec.json.Encoder().encode

OWN = ("best_of", "truncate", "watermark")
"""They shape the answer, and no other protocol has them."""
WITHOUT_EFFECT = frozenset({"decoder_input_details"})
HONOURED = frozenset(wire.Parameters.__struct_fields__) - WITHOUT_EFFECT


def decode_request(body: bytes) -> Request:
    """No model is named, or one by `adapter_id`, which picks among several sets of weights as a model's name does."""
    wired = decode(_DECODER, body)
    given = wired.parameters or wire.Parameters()
    members = members_of(body)
    parameters = members_of(bytes(members["parameters"])) if wired.parameters is not None else {}
    ignored = sorted(members.keys() - frozenset(wire.GenerateRequest.__struct_fields__))
    ignored += sorted(
        name for name in parameters.keys() - HONOURED if bytes(parameters[name]) not in (b"null", b"false")
    )
    response_format, own = _response_format(given.grammar), _own(given)
    return Request(
        model=given.adapter_id or "",
        task=Prompts([wired.inputs]),
        protocol=NAME,
        body=body,
        sampling=_sampling(given),
        response_format=response_format,
        grammar=_regex(given.grammar),
        max_output_tokens=given.max_new_tokens or DEFAULT_MAX_NEW_TOKENS,
        logprobs=bool(given.details or given.top_n_tokens),
        top_logprobs=given.top_n_tokens or 0,
        stream=bool(wired.stream),
        ignored=ignored,
        own=own,
        options={
            "details": bool(given.details),
            "prefill": bool(given.decoder_input_details),
            "full_text": bool(given.return_full_text),
        },
    )


def _own(given: wire.Parameters) -> list[str]:
    names = [name for name in OWN if getattr(given, name) not in (None, False)]
    if given.best_of == 1:
        names.remove("best_of")
    if given.grammar is not None and given.grammar.type == "regex":
        names.append("grammar")
    return [f"parameters.{name}" for name in names]


def _regex(given: wire.Grammar | None) -> Grammar | None:
    if given is None or given.type != "regex":
        return None
    if not isinstance(given.value, str):
        raise InvalidRequest("'parameters.grammar.value' of type regex is text.", param="parameters.grammar.value")
    return Grammar(given.value, "parameters.grammar", regex=True)


def _sampling(given: wire.Parameters) -> Sampling:
    """Greedy unless any knob of sampling is turned, as the server that this protocol comes from does."""
    stop = given.stop or []
    if len(stop) > 16 or any(not text for text in stop):
        raise InvalidRequest("'stop' takes at most 16 strings, none of them empty.", param="parameters.stop")
    knobs = (given.temperature, given.top_k, given.top_p, given.typical_p)
    samples = given.do_sample or any(knob is not None for knob in knobs)
    return Sampling(
        temperature=given.temperature or (1.0 if samples else 0.0),
        top_p=given.top_p if given.top_p is not None and given.top_p < 1 else None,
        top_k=given.top_k,
        typical_p=given.typical_p,
        frequency_penalty=given.frequency_penalty,
        repetition_penalty=given.repetition_penalty,
        seed=given.seed,
        stop=stop,
    )


def _response_format(grammar: wire.Grammar | None) -> ResponseFormat | None:
    if grammar is None or grammar.type == "regex":
        return None
    value = grammar.value
    if isinstance(value, str):
        value = decode(_SCHEMA, value.encode(), "parameters.grammar.value")
    if grammar.type == "json":
        return ResponseFormat(schema=value)
    schema, name = value.get("schema"), value.get("name")
    if not isinstance(schema, dict):
        raise InvalidRequest(
            "'parameters.grammar.value' of type json_schema needs an object 'schema'.", param="parameters.grammar.value"
        )
    return ResponseFormat(schema=schema, name=name if isinstance(name, str) else None)


def rewrite_request(request: Request, model: str) -> bytes:
    """The caller's body with what counts its tokens. `model` is not said: such a server has one."""
    members: dict[str, Any] = dict(top_level(request.body))
    given = members.get("parameters", msgspec.Raw(b"null"))
    parameters: dict[str, Any] = {} if bytes(given) == b"null" else dict(top_level(bytes(given)))
    parameters.pop("adapter_id", None)
    parameters["details"] = True
    if not request.stream:
        parameters["decoder_input_details"] = True
    return _ENCODE({**members, "parameters": parameters, "stream": request.stream})


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    """`details` always: they count the tokens. A whole answer counts its prompt only by listing it."""
    task, sampling = request.task, request.sampling
    if not isinstance(task, Prompts):
        raise InvalidRequest("This model only takes text completions.", param="model")
    _refuse(request, task)
    prompt = task.prompts[0]
    greedy = sampling.temperature == 0 or sampling.top_p == 0
    names = ("temperature", "top_k", "top_p", "typical_p")
    knobs = {} if greedy else {name: getattr(sampling, name) for name in names}
    for share in ("top_p", "typical_p"):
        if (value := knobs.get(share)) is not None and value >= 1:
            knobs[share] = None
    if (top_k := knobs.get("top_k")) is not None and top_k < 1:
        knobs["top_k"] = None
    parameters: dict[str, Any] = {
        "details": True,
        "decoder_input_details": None if stream else True,
        "do_sample": not greedy,
        **knobs,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
        "max_new_tokens": request.max_output_tokens,
        "top_n_tokens": max(request.top_logprobs, 1) if request.logprobs else None,
        "grammar": _encode_grammar(request.response_format),
    }
    kept = {name: value for name, value in parameters.items() if value is not None}
    return _ENCODE({"inputs": prompt, "parameters": kept, "stream": stream})


def _refuse(request: Request, task: Prompts) -> None:
    """InvalidRequest for what this protocol cannot carry."""
    sampling = request.sampling
    lost = {
        "prompt": len(task.prompts) != 1 or not isinstance(task.prompts[0], str),
        "n": request.n > 1,
        "echo": task.echo,
        "suffix": task.suffix,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty,
        "logit_bias": sampling.logit_bias,
        "ignore_eos": sampling.ignore_eos,
        "min_tokens": sampling.min_tokens,
    }
    for name, given in lost.items():
        if given:
            raise InvalidRequest(f"This model takes one text at a time and cannot honour this '{name}'.", param=name)


def _encode_grammar(given: ResponseFormat | None) -> dict[str, Any] | None:
    return None if given is None else {"type": "json", "value": given.schema or {"type": "object"}}
