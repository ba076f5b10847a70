"""Records of the worker protocol: a request is JSON, an answer is a stream of MessagePack frames.

Fields are only ever added, with a default; a reader ignores what it does not know.
"""

from typing import Annotated, Any

import msgspec

VERSION = 1
PREFIX = "/worker/v1"
FRAMES = b"application/vnd.tokenworks.frames"
"""Content type of an answer."""
OVERDUE = "deadline_exceeded"
"""Code of the error that ends an answer when its request's deadline has passed."""

NonNegative = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Call(msgspec.Struct, frozen=True):
    """`arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """`role`: system | user | assistant | tool. A tool's result names its `call_id`."""

    role: str
    content: str = ""
    name: str | None = None
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str | None = None


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """`strict`: the arguments of a call match `parameters`, also where the model is free to call or not."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] = {}
    strict: bool = False


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """None: the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: dict[str, float] = {}
    ignore_eos: bool = False
    min_tokens: NonNegative | None = None


class Ranking(msgspec.Struct, frozen=True, omit_defaults=True):
    """`top_n` None: every document."""

    query: str
    documents: tuple[str, ...]
    top_n: Positive | None = None


class GenerateRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of `messages`, `prompts`, `embed`, `rank` is set. Choice `i` of prompt `p` has the index `p * n + i`."""

    model: str = ""
    messages: tuple[Message, ...] | None = None
    prompts: tuple[str | list[int], ...] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: str = "auto"
    """auto | none | required."""
    forced_tool: str | None = None
    json: bool = False
    """Answer with a JSON value; one that matches `json_schema` when that is set."""
    json_schema: dict[str, Any] | None = None
    regex: str | None = None
    """Answer with text that matches it."""
    grammar: str | None = None
    """Answer with text of this grammar, in the notation of llama.cpp (GBNF) or of Lark."""
    max_tokens: Positive | None = None
    n: Positive = 1
    sampling: Sampling = Sampling()
    logprobs: NonNegative | None = None
    """None: none. Otherwise how many alternatives to each token."""
    echo: bool = False
    """Begin the answer with the prompt."""
    embed: tuple[str | list[int], ...] | None = None
    """Texts, or their tokens, to be answered by a `Vector` each."""
    dimensions: Positive | None = None
    """Of a vector; None: the model's own."""
    parallel_tool_calls: bool = True
    """False: the answer ends with its first call."""
    thinking: bool | None = None
    """Whether to reason before the answer; None: as the chat template likes."""
    template_arguments: dict[str, Any] = {}
    """Further variables of the chat template."""
    truncate: bool = False
    """A maximum beyond the room that the prompt leaves is cut to it; otherwise that is an error."""
    rank: Ranking | None = None
    """To be answered by a `Ranked` for each document, in falling order of the score."""
    tenant: str = ""
    """Whose request it is: tenants get fair shares, and nothing that is computed for one is used for another."""
    salt: str = ""
    """Among requests of one tenant, too, nothing that is computed under one is used under another."""
    priority: str = "standard"
    """interactive | standard | batch."""
    resume: tuple[tuple[int, ...], ...] = ()
    """For each choice, tokens of it that were already given: the answer goes on after them."""
    prefixes: tuple[int, ...] = ()
    """Names that the caller knows the prompt's beginnings by, shorter ones first: `PromptNamed` (kv.py) tells which
    blocks they are."""
    deadline: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Seconds from now after which nobody wants the answer any more."""


class Logprob(msgspec.Struct, frozen=True, array_like=True):
    """`top` holds the alternatives as (token, logprob)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Started(msgspec.Struct, tag="started", frozen=True):
    id: str
    model: str


class Tokens(msgspec.Struct, tag="tokens", frozen=True, omit_defaults=True):
    """`text` may lag behind `ids` while it could still become a stop string; it never holds half a character."""

    ids: tuple[int, ...] = ()
    text: str = ""
    index: int = 0
    logprobs: tuple[Logprob, ...] | None = None
    reasoning: bool = False
    gpu_ms: int = 0
    """Where it is told, as now and then in a long answer: as in `Usage`, so far."""


class ToolCall(msgspec.Struct, tag="tool_call", frozen=True, omit_defaults=True):
    """A part of call number `call`; `id` and `name` come with its first part only."""

    arguments: str
    call: int = 0
    id: str | None = None
    name: str | None = None
    index: int = 0


class Vector(msgspec.Struct, tag="vector", frozen=True, omit_defaults=True):
    """The embedding of input number `index`."""

    values: list[float]
    index: int = 0


class Ranked(msgspec.Struct, tag="ranked", frozen=True, omit_defaults=True):
    """Document number `index`."""

    score: float
    index: int = 0


class Finish(msgspec.Struct, tag="finish", frozen=True, omit_defaults=True):
    """`reason`: stop | length | tool_calls | content_filter. One for each choice."""

    reason: str
    index: int = 0
    stop_sequence: str | None = None


class Usage(msgspec.Struct, tag="usage", frozen=True, omit_defaults=True):
    """Over all choices. Disjoint input kinds, as core.usage.Usage. The last frame of a complete answer."""

    input: int = 0
    cached_input: int = 0
    cache_write: int = 0
    output: int = 0
    reasoning: int = 0
    gpu_ms: int = 0
    """Milliseconds that the engine computed for it: of a step that was for several requests, each one's share."""


class Error(msgspec.Struct, tag="error", frozen=True, omit_defaults=True):
    """The answer broke off after it began; nothing follows."""

    message: str
    status: int = 500
    code: str = "internal_error"


Event = Started | Tokens | ToolCall | Vector | Ranked | Finish | Usage | Error


class TokenizeRequest(msgspec.Struct, frozen=True):
    text: str


class TokenizeResponse(msgspec.Struct, frozen=True):
    """`texts`: each token's own text, where it is one by itself."""

    ids: list[int]
    texts: list[str] = []


class DetokenizeRequest(msgspec.Struct, frozen=True):
    ids: list[int]


class DetokenizeResponse(msgspec.Struct, frozen=True):
    text: str


class RenderRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """The chat template applied to a conversation, ready for the model to go on."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


class RenderResponse(msgspec.Struct, frozen=True):
    text: str
    ids: list[int]
