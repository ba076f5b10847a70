"""What Fireworks' API adds to OpenAI's: measurements in headers and, when asked for, in the answer; long model names.

Measurements are told as text under Fireworks' own names. Those that only its dedicated deployments have are left out.
"""

import re
from dataclasses import replace
from typing import Any

from tokenworks.core.errors import LimitReached, TokenworksError
from tokenworks.core.events import Event, Timing
from tokenworks.core.request import Request
from tokenworks.core.usage import Usage
from tokenworks.protocols.allowances import fireworks_headers
from tokenworks.protocols.base import Codec, Observation, StreamWriter
from tokenworks.protocols.closing import ClosingWriter, extended, usage_and_timing
from tokenworks.protocols.openai_chat import requests, responses
from tokenworks.protocols.openai_chat.codec import OpenAIChat
from tokenworks.protocols.openai_completions import requests as text_requests
from tokenworks.protocols.openai_completions import responses as text_responses
from tokenworks.protocols.openai_completions.codec import OpenAICompletions

_LONG_NAME = re.compile(r"^accounts/[^/]+/models/")


def _metrics(usage: Usage, timing: Timing) -> dict[str, str]:
    return {
        "prompt-tokens": str(usage.prompt),
        "cached-prompt-tokens": str(usage.cached_input),
        "server-time-to-first-token": f"{timing.queue + timing.prompt:.6f}",
        "server-processing-time": f"{timing.queue + timing.total:.6f}",
    }


def _members(usage: Usage, timing: Timing) -> dict[str, Any]:
    return {"perf_metrics": _metrics(usage, timing)}


def _decoded(request: Request, name: str) -> Request:
    return replace(request, model=_LONG_NAME.sub("", request.model), protocol=name)


class Measured:
    """The part of both codecs that tells measurements in headers: of whole answers only, a stream's begin too early."""

    allowance_headers = staticmethod(fireworks_headers)

    def error_status(self, error: TokenworksError) -> int:
        return 402 if isinstance(error, LimitReached) and error.is_quota else error.status

    def answer_headers(self, observation: Observation) -> list[tuple[bytes, bytes]]:
        if observation.usage is None or observation.clock is None:
            return []
        told = _metrics(observation.usage, observation.clock())
        return [(f"fireworks-{name}".encode(), value.encode()) for name, value in told.items()]


class FireworksChat(Measured, OpenAIChat):
    name = requests.MEASURED

    @staticmethod
    def decode_request(body: bytes) -> Request:
        return _decoded(requests.decode_request(body), requests.MEASURED)

    @staticmethod
    def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
        body = responses.encode_response(request, events, response_id, created)
        return extended(body, _members(*usage_and_timing(events))) if request.timed else body

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        writer = super().stream_writer(request, response_id, created)
        return ClosingWriter(writer, _members) if request.timed else writer


class FireworksCompletions(Measured, OpenAICompletions):
    name = text_requests.MEASURED

    @staticmethod
    def decode_request(body: bytes) -> Request:
        return _decoded(text_requests.decode_request(body), text_requests.MEASURED)

    @staticmethod
    def encode_response(request: Request, events: list[Event], response_id: str, created: int) -> bytes:
        body = text_responses.encode_response(request, events, response_id, created)
        return extended(body, _members(*usage_and_timing(events))) if request.timed else body

    def stream_writer(self, request: Request, response_id: str, created: int) -> StreamWriter:
        writer = super().stream_writer(request, response_id, created)
        return ClosingWriter(writer, _members) if request.timed else writer


CHAT: Codec = FireworksChat()
COMPLETIONS: Codec = FireworksCompletions()
