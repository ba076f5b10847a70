"""Answers of rerank: an upstream's body -> events, events -> the caller's body, and the relay between equals."""

from typing import Any

import msgspec

from tokenworks.core.events import Event, Finished, FinishReason, Ranked, Started, UsageReport
from tokenworks.core.request import Request, Rerank
from tokenworks.core.usage import Usage
from tokenworks.protocols.rerank import types as wire
from tokenworks.protocols.whole import WholeRelay

DOCUMENTS_PER_UNIT = 100
"""A search unit is one query with up to so many documents (https://docs.cohere.com/v2/docs/rerank-overview)."""

_DECODER = msgspec.json.Decoder(wire.Answer)
_ENCODE = msgspec.json.Encoder().encode


def _decode(body: bytes) -> tuple[wire.Answer, list[wire.Result]]:
    try:
        answer = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    results = answer.data if answer.results is None else answer.results
    if results is None:
        raise ValueError("it has no results")
    return answer, results


def read_response(body: bytes) -> list[Event]:
    answer, results = _decode(body)
    events: list[Event] = [Started(answer.id or "", answer.model or "")]
    events += [Ranked(result.index, result.relevance_score) for result in results]
    if usage := _read_usage(answer):
        events.append(UsageReport(usage))
    return [*events, Finished(FinishReason.STOP)]


def _read_usage(answer: wire.Answer) -> Usage | None:
    """None when the host counts search units only."""
    usage, meta = answer.usage or wire.UsageBody(), answer.meta or wire.Counts()
    counts = [usage.prompt_tokens, usage.total_tokens, *(t.input_tokens for t in (meta.tokens, meta.billed_units) if t)]
    counted = next((count for count in counts if count is not None), None)
    return None if counted is None else Usage(input=int(counted))


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    """Every host's members at once: `usage` where most count, `meta` where Cohere does."""
    usage, model, ranked = Usage(), request.model, list[Ranked]()
    for event in events:
        match event:
            case Started():
                model = event.model or model
            case UsageReport():
                usage = event.usage
            case Ranked():
                ranked.append(event)
    task = request.task if isinstance(request.task, Rerank) else Rerank("", [])
    ranked.sort(key=lambda one: -one.score)
    body = {
        "id": response_id,
        "object": "rerank",
        "model": model,
        "results": [_result(one, task) for one in ranked[: task.top_n]],
        "usage": {"prompt_tokens": usage.prompt, "completion_tokens": 0, "total_tokens": usage.prompt},
        "meta": {
            "billed_units": {"search_units": -(-len(task.documents) // DOCUMENTS_PER_UNIT)},
            "tokens": {"input_tokens": usage.prompt, "output_tokens": 0},
        },
    }
    return _ENCODE(body)


def _result(one: Ranked, task: Rerank) -> dict[str, Any]:
    result: dict[str, Any] = {"index": one.index, "relevance_score": one.score}
    if task.return_documents and 0 <= one.index < len(task.documents):
        result["document"] = {"text": task.documents[one.index]}
    return result


class Passthrough(WholeRelay):
    def _see_whole(self, body: bytes) -> None:
        answer, _ = _decode(body)
        self.observation.usage = _read_usage(answer)
        self.observation.response_model = answer.model or ""
