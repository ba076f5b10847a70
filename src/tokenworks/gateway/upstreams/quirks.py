"""Deviations of endpoints from their protocol, by the names that an UpstreamRecord carries. One place for each.

usage_per_choice              one usage report per choice in a stream; a whole answer counts only one choice
completion_logprobs_as_chat   log probabilities of text completions come in the shape of chat's
usage_in_text_chunk           text completions report usage in the last chunk with text, asked or not
no_min_tokens                 `min_tokens` is not known; `ignore_eos` is
no_echo                       `echo` of text completions has no effect; it is done here (echoed.py)
no_suffix                     `suffix` of text completions has no effect; it is refused
repeat_penalty                `repetition_penalty` is called `repeat_penalty`
reasoning_by_template         reasoning is asked for by `chat_template_kwargs`, the arguments of the chat template
closes_after_stream           the connection ends with a stream, untold: it must not be kept for another request
continues_prefill             goes on with a last message of the assistant's, which its protocol does not promise
continues_marked              does so when that message is marked by `prefix`
continues_flagged             does so when the body says `continue_final_message`
repeats_prefix                and says it again before it goes on
no_prefill                    does not, although its protocol promises it
grammars                      holds an answer to a regular expression or a grammar, which its protocol does not promise
signs_calls                   calls come signed, and are refused without their signature
reasoning_details             takes the proofs of earlier reasoning back in a member of this name
no_reasoning_back             reasoning of earlier turns is refused as a member that is not known
forced_tools_by_schema        `tool_choice` required or named is not enforced; a JSON schema is (forced_tools.py)
"""

from collections.abc import Set
from dataclasses import replace
from typing import Any

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.messages import Thinking, ToolMode
from tokenworks.core.request import Conversation, Prompts, Request
from tokenworks.protocols.openai_chat.reasoning import NAME as DETAILS
from tokenworks.protocols.openai_chat.reasoning import with_details
from tokenworks.protocols.openai_chat.signed_calls import MARK, restored

KNOWN = frozenset(
    {
        "usage_per_choice",
        "completion_logprobs_as_chat",
        "usage_in_text_chunk",
        "no_min_tokens",
        "closes_after_stream",
        "reasoning_by_template",
        "no_echo",
        "no_suffix",
        "repeat_penalty",
        "forced_tools_by_schema",
        "continues_prefill",
        "continues_marked",
        "continues_flagged",
        "repeats_prefix",
        "no_prefill",
        "grammars",
        "signs_calls",
        "no_reasoning_back",
        "reasoning_details",
    }
)
CONTINUES = frozenset({"continues_prefill", "continues_marked", "continues_flagged"})

_REASONING = frozenset({"reasoning_content", "reasoning", DETAILS})
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_ENCODE = msgspec.json.Encoder().encode


def adapt(request: Request, odd: Set[str]) -> Request:
    """The request as this endpoint can honour it; the caller's own is never changed."""
    if "no_suffix" in odd and isinstance(request.task, Prompts) and request.task.suffix:
        raise InvalidRequest("This model does not fill in the middle: 'suffix' is not supported.", param="suffix")
    if "grammars" in odd and request.grammar is not None:
        own = [name for name in request.own if name != request.grammar.param]
        request = replace(request, own=own, unusual=True)
    sampling = request.sampling
    if "no_min_tokens" in odd and sampling.min_tokens is not None:
        whole = request.max_output_tokens is not None and sampling.min_tokens >= request.max_output_tokens
        honoured = replace(sampling, min_tokens=None, ignore_eos=sampling.ignore_eos or whole)
        return replace(request, sampling=honoured)
    return request


def for_reading(request: Request, odd: Set[str]) -> Set[str]:
    """What the reader of the answer must know. One report per choice is one per prompt when there are several."""
    if "usage_per_choice" not in odd or not isinstance(request.task, Prompts) or len(request.task.prompts) == 1:
        return odd
    if request.n > 1:
        raise InvalidRequest("This model takes several prompts or several choices, not both at once.", param="n")
    return odd | {"usage_per_prompt"}


def reasoning_lost(request: Request, odd: Set[str]) -> bool:
    """Whether earlier turns had reasoning that this endpoint must not get."""
    if "no_reasoning_back" not in odd or not isinstance(request.task, Conversation):
        return False
    return any(isinstance(part, Thinking) for message in request.task.messages for part in message.parts)


def min_tokens_lost(request: Request) -> bool:
    """A minimum below the maximum has no equivalent in `ignore_eos`."""
    least, most = request.sampling.min_tokens, request.max_output_tokens
    return least is not None and not request.sampling.ignore_eos and (most is None or least < most)


def choices(request: Request) -> int:
    return request.n * (len(request.task.prompts) if isinstance(request.task, Prompts) else 1)


def must_translate(request: Request, odd: Set[str]) -> bool:
    """Whether passing the bytes through would give the caller a wrong answer or us a wrong bill."""
    if not odd:
        return False
    if "usage_per_choice" in odd and choices(request) > 1:
        return True
    if "no_min_tokens" in odd and b'"min_tokens"' in request.body:
        return True
    match request.task:
        case Prompts():
            return (
                must_echo(request, odd)
                or ("completion_logprobs_as_chat" in odd and request.logprobs)
                or ("usage_in_text_chunk" in odd and request.stream)
            )
        case Conversation(tool_choice=choice):
            return "forced_tools_by_schema" in odd and choice is not None and choice.mode is ToolMode.REQUIRED
        case _:
            return False


def must_echo(request: Request, odd: Set[str]) -> bool:
    return "no_echo" in odd and isinstance(request.task, Prompts) and request.task.echo


def must_stream(request: Request, odd: Set[str]) -> bool:
    """Only the stream tells the usage of every choice."""
    return "usage_per_choice" in odd and choices(request) > 1


def headers(odd: Set[str], *, stream: bool) -> dict[str, str]:
    return {"connection": "close"} if stream and "closes_after_stream" in odd else {}


def continuing(body: bytes, odd: Set[str]) -> bytes:
    """The body as it makes this endpoint go on with its last message."""
    if "continues_flagged" in odd:
        flags = {"continue_final_message": True, "add_generation_prompt": False}
        return _ENCODE({**_MEMBERS.decode(body), **flags})
    if "continues_marked" in odd:
        members = _MEMBERS.decode(body)
        messages = _OBJECTS.decode(members["messages"])
        return _ENCODE({**members, "messages": [*messages[:-1], {**messages[-1], "prefix": True}]})
    return body


def streaming(body: bytes) -> bytes:
    """The same, but asking for a stream: every protocol that has streams says it so."""
    return _ENCODE({**_MEMBERS.decode(body), "stream": True})


def dress(body: bytes, request: Request, odd: Set[str]) -> bytes:
    """The body under the names that this endpoint knows."""
    if MARK.encode() in body and isinstance(request.task, Conversation):
        body = restored(body, told="signs_calls" in odd)
    if "reasoning_details" in odd and isinstance(request.task, Conversation) and DETAILS.encode() not in body:
        body = with_details(body, request.task.messages)
    if reasoning_lost(request, odd):
        members = _MEMBERS.decode(body)
        messages = [_without_reasoning(message) for message in _OBJECTS.decode(members["messages"])]
        body = _ENCODE(members | {"messages": messages})
    if "repeat_penalty" in odd and b'"repetition_penalty"' in body:
        members = _MEMBERS.decode(body)
        members["repeat_penalty"] = members.pop("repetition_penalty")
        body = _ENCODE(members)
    if "reasoning_by_template" in odd and (arguments := _template_arguments(request)):
        members = _MEMBERS.decode(body)
        given = _MEMBERS.decode(members.get("chat_template_kwargs", b"{}"))
        body = _ENCODE(members | {"chat_template_kwargs": arguments | given})
    return body


def _without_reasoning(message: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {name: value for name, value in message.items() if name not in _REASONING}


def _template_arguments(request: Request) -> dict[str, Any]:
    """What the templates of reasoning models call it."""
    reasoning = request.reasoning
    if reasoning is None:
        return {}
    thinks = reasoning.effort != "none" if reasoning.effort else reasoning.enabled is not False
    arguments: dict[str, Any] = {"enable_thinking": thinks}
    return arguments | ({"reasoning_effort": reasoning.effort} if reasoning.effort and thinks else {})
