"""Wire types of the Responses API: only what we read. Unknown members pass through untouched."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tokenworks.protocols.openai_chat.types import Name, Penalty, Probability, Temperature, TokenLogprob

Count = Annotated[int, Meta(ge=1)]


class Tagged(msgspec.Struct):
    """What kind of item, content or tool it is, before it is read as that."""

    type: str | None = None
    role: str | None = None


class MessageItem(msgspec.Struct):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[msgspec.Raw]
    phase: str | None = None


class FunctionCallItem(msgspec.Struct):
    call_id: Name
    name: Name
    arguments: str
    namespace: str | None = None


class FunctionCallOutputItem(msgspec.Struct):
    call_id: Name
    output: str | list[msgspec.Raw]


class TextPart(msgspec.Struct):
    text: str


class RefusalPart(msgspec.Struct):
    refusal: str


class ImagePart(msgspec.Struct):
    image_url: str | None = None
    detail: str | None = None


class ReasoningItem(msgspec.Struct):
    id: str | None = None
    summary: list[TextPart] | None = None
    content: list[TextPart] | None = None
    encrypted_content: str | None = None


class FunctionTool(msgspec.Struct):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenTool(msgspec.Struct):
    """A function by its name, `allowed_tools` of a list, or a tool of a kind that only this protocol knows."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list["ChosenTool"] | None = None


ToolChoice = Literal["none", "auto", "required"] | ChosenTool


class TextFormat(msgspec.Struct, tag="text"):
    pass


class JsonObjectFormat(msgspec.Struct, tag="json_object"):
    pass


class JsonSchemaFormat(msgspec.Struct, tag="json_schema"):
    name: Name
    schema: dict[str, Any]
    strict: bool | None = None
    description: str | None = None


class TextOptions(msgspec.Struct):
    format: TextFormat | JsonObjectFormat | JsonSchemaFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(msgspec.Struct):
    """`conversation`, `prompt` and `previous_response_id` stand for content that somebody else holds."""

    model: Name
    input: str | list[msgspec.Raw] | None = None
    instructions: str | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    previous_response_id: str | None = None
    conversation: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    service_tier: str | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None


class WriteDetails(msgspec.Struct):
    ttl_12h_tokens: int | None = None


class InputDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    cache_write_tokens_details: WriteDetails | None = None


class OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class UsageBody(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: InputDetails | None = None
    output_tokens_details: OutputDetails | None = None


class IncompleteDetails(msgspec.Struct):
    reason: str | None = None


class Failure(msgspec.Struct):
    """How a response, or an error event, says what went wrong."""

    code: Any = None
    message: str | None = None
    param: str | None = None


class Response(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    status: str | None = None
    output: list[msgspec.Raw] | None = None
    usage: UsageBody | None = None
    service_tier: str | None = None
    incomplete_details: IncompleteDetails | None = None
    error: Failure | str | None = None


class StoredBody(msgspec.Struct):
    """What is looked at in a response object that we wrote or passed on."""

    id: str
    created_at: float
    status: str
    model: str
    completed_at: float | None = None
    background: bool | None = None


class Identified(msgspec.Struct):
    id: str


class OutputPart(msgspec.Struct):
    type: str = ""
    text: str | None = None
    refusal: str | None = None
    logprobs: list[TokenLogprob] | None = None


class OutputItem(msgspec.Struct):
    """Items of other kinds have members of the same names and other types: read `type` first."""

    type: str = ""
    content: list[OutputPart] | None = None
    summary: list[OutputPart] | None = None
    encrypted_content: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None


class StreamEvent(msgspec.Struct):
    type: str = "error"
    output_index: int = 0
    summary_index: int = 0
    delta: Any = None
    logprobs: list[TokenLogprob] | None = None
    item: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    error: Failure | str | None = None
    code: Any = None
    message: str | None = None
    param: str | None = None


class ToldEvent(msgspec.Struct):
    """What a caller remembers of an event."""

    type: str = "error"
    sequence_number: int = 0
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    delta: Any = None
    logprobs: list[dict[str, Any]] | None = None
    item: dict[str, Any] | None = None
    part: dict[str, Any] | None = None
    response: dict[str, Any] | None = None


class PassingEvent(msgspec.Struct):
    """What a relay looks at in an event that it passes on."""

    type: str = "error"
    sequence_number: int = -1
    output_index: int = 0
    content_index: int = 0
    item_id: str | None = None
    item: msgspec.Raw = msgspec.Raw()
    part: Tagged | None = None
    response: msgspec.Raw = msgspec.Raw()
    delta: msgspec.Raw = msgspec.Raw()
