"""A conversation with a model over the chat completions API. Speaks HTTP; draws nothing."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tokenworks.client import Client, ClientError
from tokenworks.protocols.sse import Splitter, data_of

IDLE = 120.0
"""Seconds of silence after which an answer is given up."""


@dataclass(slots=True)
class Answer:
    """`first_token` and `seconds` are measured here, from the request on."""

    text: str = ""
    finish_reason: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    first_token: float | None = None
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """Of the generation alone: without the wait for the first token."""
        if self.first_token is None or self.output_tokens < 2 or self.seconds <= self.first_token:
            return None
        return (self.output_tokens - 1) / (self.seconds - self.first_token)


@dataclass(slots=True)
class Conversation:
    model: str
    system: str | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    turns: list[dict[str, str]] = field(default_factory=list)

    def reset(self) -> None:
        self.turns.clear()

    async def ask(self, client: Client, text: str, show: Callable[[str], None]) -> Answer:
        """Send one more turn; `show` gets the answer's pieces as they come. A failed turn leaves no trace."""
        question = {"role": "user", "content": text}
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {
            "model": self.model,
            "messages": [*system, *self.turns, question],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.sampling,
        }
        answer, begun = Answer(), time.monotonic()
        splitter = Splitter()
        async with client.stream("POST", "/v1/chat/completions", body=body, idle=IDLE) as response:
            async for chunk in response.content.iter_any():
                for block in splitter.feed(chunk):
                    _take(answer, data_of(block), begun, show)
        answer.seconds = time.monotonic() - begun
        if answer.finish_reason is None:
            raise ClientError(502, "the answer was cut off before its end; ask again", "cut_off")
        self.turns += [question, {"role": "assistant", "content": answer.text}]
        return answer


def _take(answer: Answer, data: bytes | None, begun: float, show: Callable[[str], None]) -> None:
    if data is None or data == b"[DONE]":
        return
    chunk = json.loads(data)
    if error := chunk.get("error"):
        raise ClientError(502, str(error.get("message") or error), str(error.get("code") or ""))
    if usage := chunk.get("usage"):
        answer.input_tokens, answer.output_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    for choice in chunk.get("choices", ()):
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
        if text := choice["delta"].get("content"):
            if answer.first_token is None:
                answer.first_token = time.monotonic() - begun
            answer.text += text
            show(text)
