"""Predictions that ended: an upstream's body -> events, and events -> the caller's body."""

import msgspec

from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import Event, Failed, Finished, FinishReason, Started, TextDelta, UsageReport
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.replicate import types as wire
from tokenworks.protocols.replicate.prediction import Prediction, moment

_DECODER = msgspec.json.Decoder(wire.Answer)
_ENCODE = msgspec.json.Encoder().encode


def read_response(body: bytes) -> list[Event]:
    """ValueError also while it has not ended: a host answers so when it did not want to wait any longer."""
    try:
        answer = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
    started = Started(answer.id, answer.model)
    if answer.status in ("failed", "canceled", "aborted"):
        reason = answer.error or f"the prediction was {answer.status}"
        return [started, Failed(UpstreamBroken(f"The upstream failed: {reason}"))]
    if answer.status != "succeeded":
        raise ValueError(f"its status is {answer.status!r}")
    events: list[Event] = [started]
    if text := answer.output if isinstance(answer.output, str) else "".join(answer.output or ()):
        events.append(TextDelta(text))
    counts = answer.metrics
    if counts is not None and counts.input_token_count is not None and counts.output_token_count is not None:
        events.append(UsageReport(Usage(input=counts.input_token_count, output=counts.output_token_count)))
    return [*events, Finished(FinishReason.STOP)]


def new_prediction(request: Request, response_id: str, created: float, urls: dict[str, str]) -> Prediction:
    """The record of a request that was just accepted. `version` is what its clients demand to be text."""
    return Prediction(
        id=response_id,
        model=request.model,
        version=request.options.get("version") or request.model,
        input=request.options.get("input") or {},
        created_at=moment(created),
        urls=urls,
    )


def encode_prediction(prediction: Prediction) -> bytes:
    return _ENCODE(prediction)


def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
    """For who does not keep predictions: one that begins and ends at once, without addresses."""
    prediction = new_prediction(request, response_id, created, {})
    prediction.begin(created)
    for event in events:
        prediction.see(event)
    prediction.succeed(created)
    return encode_prediction(prediction)
