"""Wire types of chat completions: only what we read. Unknown members pass through untouched."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Name = Annotated[str, Meta(min_length=1)]
MOST_CHOICES = 128


class TextPart(msgspec.Struct, tag="text"):
    text: str


class ImageUrl(msgspec.Struct):
    url: str
    detail: str | None = None


class ImagePart(msgspec.Struct, tag="image_url"):
    image_url: ImageUrl


class RefusalPart(msgspec.Struct, tag="refusal"):
    refusal: str


class Sound(msgspec.Struct):
    """`data` is base64; `format` is wav or mp3."""

    data: str
    format: str


class AudioPart(msgspec.Struct):
    input_audio: Sound


class Tagged(msgspec.Struct):
    """What kind of content or tool it is, before it is read as that."""

    type: str


KnownPart = TextPart | ImagePart | RefusalPart
Content = str | list[msgspec.Raw] | None
"""Parts stay raw here: kinds that only this protocol knows pass through."""


class FunctionCall(msgspec.Struct):
    name: str
    arguments: str


class ToolCallPart(msgspec.Struct):
    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class SystemMessage(msgspec.Struct, tag="system", tag_field="role"):
    content: Content
    name: str | None = None


class DeveloperMessage(msgspec.Struct, tag="developer", tag_field="role"):
    content: Content
    name: str | None = None


class UserMessage(msgspec.Struct, tag="user", tag_field="role"):
    content: Content
    name: str | None = None


class AssistantMessage(msgspec.Struct, tag="assistant", tag_field="role"):
    content: Content = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPart] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: msgspec.Raw = msgspec.Raw()


class ToolMessage(msgspec.Struct, tag="tool", tag_field="role"):
    content: Content
    tool_call_id: str


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionDefinition(msgspec.Struct):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolKind(msgspec.Struct):
    type: str = "function"


class ToolDefinition(msgspec.Struct):
    function: FunctionDefinition


class FunctionName(msgspec.Struct):
    name: str


class ChosenFunction(msgspec.Struct):
    function: FunctionName


class AllowedTools(msgspec.Struct):
    tools: list[ChosenFunction]
    mode: Literal["auto", "required"] = "auto"


class ChosenTool(msgspec.Struct):
    """One function, or (`allowed_tools`) the functions of which the model may choose."""

    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None


class TextFormat(msgspec.Struct, tag="text"):
    pass


class JsonObjectFormat(msgspec.Struct, tag="json_object"):
    """Both are JSON schemas: `value` is what Hugging Face's client makes of `json_schema` when it knows only a URL,
    `schema` the older way of Together and Fireworks."""

    value: dict[str, Any] | None = None
    schema: dict[str, Any] | None = None


class JsonSchema(msgspec.Struct):
    name: str
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class JsonSchemaFormat(msgspec.Struct, tag="json_schema"):
    json_schema: JsonSchema


class RegexFormat(msgspec.Struct, tag="regex"):
    """Together's, and SGLang's with `regex`."""

    pattern: str | None = None
    regex: str | None = None


class GrammarFormat(msgspec.Struct, tag="grammar"):
    """Fireworks'."""

    grammar: str


class StructuredOutputs(msgspec.Struct):
    """vLLM's; what else it may hold is for vLLM alone."""

    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


KnownFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat
GrammarFormats = RegexFormat | GrammarFormat


class ReasoningOptions(msgspec.Struct):
    """Together's `reasoning`, and OpenRouter's."""

    enabled: bool | None = None
    effort: str | None = None
    max_tokens: Count | None = None


class ThinkingOptions(msgspec.Struct):
    """Fireworks' `thinking`, after Anthropic's."""

    type: Literal["enabled", "disabled", "adaptive"] = "enabled"
    budget_tokens: Count | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(msgspec.Struct):
    model: Name
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: int | None = None
    min_p: Probability | None = None
    typical_p: Probability | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_CHOICES)] | None = None
    logprobs: bool | Annotated[int, Meta(ge=0, le=20)] | None = None
    """A number is Together's way: so many alternatives."""
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[msgspec.Raw] | None = None
    tool_choice: str | ChosenTool | None = None
    """none, auto, required; "any" for required is Mistral's word, a function's bare name TGI's way."""
    parallel_tool_calls: bool | None = None
    response_format: msgspec.Raw = msgspec.Raw()
    structured_outputs: StructuredOutputs | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    """vLLM's, the last three as it called them before."""
    reasoning_effort: str | None = None
    reasoning: ReasoningOptions | None = None
    thinking: ThinkingOptions | None = None
    service_tier: str | None = None
    modalities: list[str] | None = None
    perf_metrics_in_response: bool | None = None
    prompt_cache_isolation_key: str | None = None
    cache_salt: str | None = None
    """The same, as vLLM calls it."""
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None


class TopLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[TopLogprob] = []


class ChoiceLogprobs(msgspec.Struct):
    content: list[TokenLogprob] | None = None


class FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class GoogleExtra(msgspec.Struct):
    thought_signature: str | None = None


class ExtraContent(msgspec.Struct):
    google: GoogleExtra | None = None


class ToolCallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: FunctionDelta | None = None
    extra_content: msgspec.Raw = msgspec.Raw()
    """Where Gemini signs it."""


class ContentChunk(msgspec.Struct):
    """A part of an answer's content, from hosts that answer in parts (Mistral's `thinking` holds parts itself)."""

    type: str = "text"
    text: str = ""
    thinking: list["ContentChunk"] = []


class ReasoningDetail(msgspec.Struct):
    """OpenRouter's: `text` with its `signature`, a `summary`, or encrypted `data`."""

    type: str = ""
    text: str | None = None
    summary: str | None = None
    data: str | None = None
    signature: str | None = None
    index: int | None = None


class Delta(msgspec.Struct):
    """Of a stream's chunk, and the message of a whole answer: hosts add their own members to both."""

    content: str | list[ContentChunk] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    reasoning_details: msgspec.Raw = msgspec.Raw()
    tool_calls: list[ToolCallDelta] | None = None


class Choice(msgspec.Struct):
    """As many as anybody can ask for: a host that counts on without end is garbled."""

    index: Annotated[int, Meta(ge=0, lt=MOST_CHOICES)] | None = None
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: ChoiceLogprobs | None = None


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None


class UsageBody(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    total_tokens: int | None = None
    cached_tokens: int | None = None
    """Where one host has what others have in the details."""
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Timings(msgspec.Struct):
    """Milliseconds that a server of llama.cpp took over the prompt and over the answer."""

    prompt_ms: float = 0
    predicted_ms: float = 0


class Answer(msgspec.Struct):
    """A chunk of a stream, or a whole answer. `error` is how a stream reports its failure."""

    id: str | None = None
    object: str | None = None
    created: int | float | str | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: UsageBody | None = None
    timings: msgspec.Raw = msgspec.Raw()
    """Where an engine of ours tells how long it took."""
    service_tier: str | None = None
    error: msgspec.Raw = msgspec.Raw()
