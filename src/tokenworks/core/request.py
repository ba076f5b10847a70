"""A request in neutral form: the task, how to sample, and what the caller wants back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenworks.core.aliases.records import Resolution
from tokenworks.core.messages import Foreign, Message, Tool, ToolChoice
from tokenworks.core.routing import Preferences


@dataclass(slots=True)
class Sampling:
    """None means: the model's own default. Ranges are checked by the protocol that decoded them."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    logit_bias: dict[str, float] = field(default_factory=dict)
    ignore_eos: bool = False
    min_tokens: int | None = None


@dataclass(slots=True)
class ResponseFormat:
    """`schema` None means any JSON object; otherwise the answer must match this JSON schema."""

    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the answer's text must match: a `regex`, or a grammar in the notation of llama.cpp (GBNF) or of Lark.
    `param` is what the caller calls it; it is among the request's `own`."""

    text: str
    param: str
    regex: bool = False


@dataclass(slots=True)
class Conversation:
    """The task of a chat request."""

    messages: list[Message]
    tools: list[Tool | Foreign] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


@dataclass(slots=True)
class Prompts:
    """The task of a text completion: each prompt is text or token ids and yields `n` choices."""

    prompts: list[str | list[int]]
    echo: bool = False
    suffix: str | None = None


@dataclass(slots=True)
class Embeddings:
    """The task of an embedding request: one vector for each input, of the model's own size unless `dimensions`."""

    inputs: list[str | list[int]]
    dimensions: int | None = None
    encoding: str = "float"
    """float | base64: how the caller wants vectors; base64 is little-endian float32."""


@dataclass(slots=True)
class Rerank:
    """The task of ordering `documents` by how well they answer `query`; `top_n` None means all."""

    query: str
    documents: list[str]
    top_n: int | None = None
    return_documents: bool = False


@dataclass(slots=True)
class Reasoning:
    """How much to think. `effort`: none | minimal | low | medium | high | xhigh | max; `budget_tokens` caps it."""

    effort: str | None = None
    budget_tokens: int | None = None
    enabled: bool | None = None


@dataclass(slots=True)
class Request:
    """What a caller asked for.

    `body` and `protocol` are the caller's own bytes and wire protocol: an upstream that speaks the same
    protocol gets the body passed through. `ignored` lists the parameters that will have no effect.
    `options` are members that only the caller's own protocol knows how to answer with (a requested extra in the
    response, an id to echo); they never reach an upstream of another protocol.
    `own` names parameters that shape the answer and that only the caller's own protocol can carry: they are refused
    for an upstream of any other. An empty `model` means the service's default one.
    `unusual` tells that the body asks in a way that only some hosts of its protocol know: engines of ours get it anew.
    `guarded` tells, where it is not "", what may become of the answer: it may be shared with requests alike only.
    `routing` is who shall answer, where the caller cares. `id` is the gateway's own for it. `labels` and `session` are
    what its caller says of it to the gateway alone: metadata, and which conversation it belongs to. `via` is how the
    name of a virtual model became `model`. `shadow` tells that it is the copy of another, whose answer nobody sees.
    `may_end` tells that the gateway may have to end the answer before the model does.
    `images` are those that its body holds beside the task. `keep` asks that the answer be stored, to be read again.
    `timed` asks for a `Timing` with the answer. `batch` tells that it is a line of a batch. `tenant` is the project of
    the caller: engines of ours give tenants fair shares and keep what they computed for one from all others; with a
    `salt` also from those of the same tenant who have another one.
    `patience` are the seconds after its arrival for which the caller wants an answer; `time_left` those that are left
    to an attempt when it is made: engines of ours compute no longer. `prefixes` are what a gateway calls its beginnings
    by, where it listens to what replicas of ours hold.
    """

    model: str
    task: Conversation | Prompts | Embeddings | Rerank
    protocol: str
    body: bytes = b""
    sampling: Sampling = field(default_factory=Sampling)
    response_format: ResponseFormat | None = None
    grammar: Grammar | None = None
    max_output_tokens: int | None = None
    n: int = 1
    logprobs: bool = False
    top_logprobs: int = 0
    stream: bool = False
    include_usage: bool = False
    reasoning: Reasoning | None = None
    service_tier: str | None = None
    user: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    unusual: bool = False
    images: int = 0
    timed: bool = False
    batch: bool = False
    may_end: bool = False
    tenant: str = ""
    salt: str | None = None
    patience: float | None = None
    time_left: float | None = None
    prefixes: Sequence[int] = ()
    guarded: str = ""
    routing: Preferences | None = None
    id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    session: str = ""
    via: Resolution | None = None
    shadow: bool = False
    keep: bool = False
    options: dict[str, Any] = field(default_factory=dict)
