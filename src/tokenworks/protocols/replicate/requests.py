"""Creation of predictions: the caller's body -> Request, and Request -> an upstream's body."""

from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Image, Message, Role, Text
from tokenworks.core.request import Conversation, Prompts, Request, Sampling
from tokenworks.protocols.foreign import known_parts
from tokenworks.protocols.openai_chat.requests import decode_request as decode_chat
from tokenworks.protocols.replicate import types as wire
from tokenworks.protocols.validation import decode, members_of, present

NAME = "replicate"
_DECODER = msgspec.json.Decoder(wire.CreateRequest)
_INPUT = msgspec.json.Decoder(wire.Input)
_ENCODE = msgspec.json.Encoder().encode
RAW_TEMPLATE = "{prompt}"

HONOURED = frozenset(wire.Input.__struct_fields__)


def decode_request(body: bytes) -> Request:
    """A body that says its model itself."""
    wired = decode(_DECODER, body)
    named = wired.version or wired.model
    if not named:
        raise InvalidRequest("Missing required parameter: 'version'.", param="version")
    return decode_for(named, body)


def decode_for(named: str, body: bytes) -> Request:
    """`named` is `owner/name`, `owner/name:version` or a version: from the path, or from the body."""
    wired = decode(_DECODER, body)
    raw = bytes(members_of(body)["input"])
    given = decode(_INPUT, raw, "input")
    model, _, _ = named.partition(":")
    return Request(
        model=model,
        task=_task(given),
        protocol=NAME,
        body=body,
        sampling=Sampling(
            temperature=given.temperature,
            top_p=given.top_p,
            top_k=given.top_k,
            presence_penalty=given.presence_penalty,
            frequency_penalty=given.frequency_penalty,
            repetition_penalty=given.repetition_penalty,
            seed=given.seed,
            stop=_stop(given.stop_sequences),
            min_tokens=_not_negative(given.min_tokens or given.min_new_tokens),
        ),
        max_output_tokens=given.max_tokens or given.max_new_tokens,
        ignored=sorted(members_of(raw).keys() - HONOURED),
        options={
            "version": named,
            "input": wired.input,
            "stream": bool(wired.stream),
            "webhook": wired.webhook,
            "webhook_events_filter": wired.webhook_events_filter,
        },
    )


def names(model: str) -> list[str]:
    """The public names that a caller may mean, best first: its clients insist on an owner, which ours need not have."""
    _, _, bare = model.partition("/")
    return [model, bare] if bare else [model]


def _stop(given: str | list[str] | None) -> list[str]:
    return [text for text in (given.split(",") if isinstance(given, str) else given or []) if text]


def _not_negative(given: int | None) -> int | None:
    """Some of its models say -1 for none."""
    return given if given is not None and given >= 0 else None


def _task(given: wire.Input) -> Conversation | Prompts:
    system = [Message(Role.SYSTEM, [Text(given.system_prompt)])] if given.system_prompt else []
    if present(given.messages):
        try:
            chat = decode_chat(_ENCODE({"model": NAME, "messages": given.messages})).task
        except InvalidRequest as error:
            error.param = f"input.{error.param}"
            raise
        return Conversation(system + (chat.messages if isinstance(chat, Conversation) else []))
    if given.prompt is None:
        raise InvalidRequest("Missing required parameter: 'input.prompt'.", param="input.prompt")
    if given.prompt_template:
        if given.image:
            raise InvalidRequest("'prompt_template' and 'image' do not go together.", param="input.image")
        whole = given.prompt_template.replace("{system_prompt}", given.system_prompt or "")
        return Prompts([whole.replace("{prompt}", given.prompt)])
    parts: list[Any] = [Text(given.prompt)]
    if given.image:
        parts.append(_image(given.image))
    return Conversation([*system, Message(Role.USER, parts)])


def _image(url: str) -> Image:
    if url.startswith("data:"):
        media_type, _, data = url[5:].partition(";base64,")
        return Image(data=data, media_type=media_type, where="input.image")
    return Image(url=url, where="input.image")


def encode_request(request: Request, model: str, *, stream: bool) -> bytes:
    """`model` is what the host calls `version`."""
    _refuse(request)
    sampling = request.sampling
    given: dict[str, Any] = {
        **_encode_task(request.task),
        "max_tokens": request.max_output_tokens,
        "min_tokens": sampling.min_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "repetition_penalty": sampling.repetition_penalty,
        "seed": sampling.seed,
        "stop_sequences": ",".join(sampling.stop) or None,
    }
    kept = {name: value for name, value in given.items() if value is not None}
    return _ENCODE({"version": model, "input": kept, "stream": stream})


def _refuse(request: Request) -> None:
    """InvalidRequest for what a prediction cannot carry."""
    task = request.task
    lost = {
        "n": request.n > 1,
        "logprobs": request.logprobs,
        "response_format": request.response_format,
        "tools": isinstance(task, Conversation) and task.tools,
        "min_p": request.sampling.min_p,
        "logit_bias": request.sampling.logit_bias,
        "ignore_eos": request.sampling.ignore_eos,
        "stop": any("," in text for text in request.sampling.stop),
    }
    for name, given in lost.items():
        if given:
            raise InvalidRequest(f"This model cannot honour '{name}'.", param=name)


def _encode_task(task: object) -> dict[str, Any]:
    match task:
        case Prompts(prompts=[str() as prompt], echo=False, suffix=None):
            return {"prompt": prompt, "prompt_template": RAW_TEMPLATE}
        case Conversation(messages=messages):
            return _encode_conversation(messages)
        case _:
            raise InvalidRequest("This model takes one conversation or one text at a time.", param="model")


def _encode_conversation(messages: list[Message]) -> dict[str, Any]:
    """One question, perhaps with what goes before it as the system's words: more turns have no place here."""
    system = [message for message in messages if message.role is Role.SYSTEM]
    rest = [message for message in messages if message.role is not Role.SYSTEM]
    if len(rest) != 1 or rest[0].role is not Role.USER:
        raise InvalidRequest("This model takes one user message, and system messages.", param="messages")
    parts = known_parts(rest[0].parts)
    images = [part for part in parts if isinstance(part, Image)]
    if len(images) > 1:
        raise InvalidRequest("This model takes one image.", param="messages")
    return {
        "prompt": _text(parts),
        "system_prompt": "\n\n".join(_text(known_parts(message.parts)) for message in system) or None,
        "image": (images[0].url or f"data:{images[0].media_type};base64,{images[0].data}") if images else None,
    }


def _text(parts: list[Any]) -> str:
    return "".join(part.text for part in parts if isinstance(part, Text))
