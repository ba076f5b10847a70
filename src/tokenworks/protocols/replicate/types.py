"""Wire types of predictions: only what we read. Unknown members pass through untouched."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenworks.protocols.openai_chat.types import Count, Penalty, Probability, Temperature

WebhookEvent = Literal["start", "output", "logs", "completed"]


class Input(msgspec.Struct):
    """Of language models. `prompt_template` has `{prompt}` and `{system_prompt}` in it; filled in, it is the prompt."""

    prompt: str | None = None
    system_prompt: str | None = None
    prompt_template: str | None = None
    messages: msgspec.Raw = msgspec.Raw()
    image: str | None = None
    max_tokens: Count | None = None
    max_new_tokens: Count | None = None
    min_tokens: int | None = None
    min_new_tokens: int | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: int | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop_sequences: str | list[str] | None = None
    """Separated by commas, or a list."""


class CreateRequest(msgspec.Struct):
    """`version` is `owner/name`, `owner/name:version` or a version alone; the path may say it instead."""

    input: dict[str, Any]
    version: str | None = None
    model: str | None = None
    stream: bool | None = None
    webhook: Annotated[str, Meta(pattern="^https?://")] | None = None
    webhook_events_filter: list[WebhookEvent] | None = None


class Metrics(msgspec.Struct):
    input_token_count: int | None = None
    output_token_count: int | None = None


class Answer(msgspec.Struct):
    """A prediction as a host tells it. A language model's output is text or pieces of it."""

    status: str
    id: str = ""
    model: str = ""
    output: str | list[str] | None = None
    error: Any = None
    metrics: Metrics | None = None
