"""How a request goes to one upstream: which protocol, which bytes, and how its answer comes back.

The same protocol on both sides passes through. Anything else, and a request that this endpoint would answer wrongly
(its quirks) or whose answer may have to be ended in the middle (its limits), goes through the neutral form.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tokenworks.core.errors import InternalError, InvalidRequest
from tokenworks.core.messages import ToolMode
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank
from tokenworks.gateway.upstreams import quirks
from tokenworks.gateway.upstreams.echoed import Echoed
from tokenworks.gateway.upstreams.forced_tools import ForcedTools
from tokenworks.gateway.upstreams.images import images_of
from tokenworks.protocols import codec
from tokenworks.protocols.base import Addressed, Codec, Observation, ReadsHeaders, Relay, Renaming, Watching
from tokenworks.protocols.translation import Translation
from tokenworks.snapshot.records import UpstreamRecord


@dataclass(slots=True)
class Outgoing:
    """One POST: `path` is under the upstream's base URL (`rooted`: under its host), `headers` go beside ours, `codec`
    reads what is no answer."""

    codec: Codec
    body: bytes
    path: str
    headers: Mapping[str, str]
    rooted: bool = field(default=False, kw_only=True)
    model: str = field(default="", kw_only=True)
    """By the upstream's name, for those who are told it in the path."""


@dataclass(slots=True)
class Prepared(Outgoing):
    """`relay` carries the answer back; `fold` says that a stream is collected for a caller who wants one answer."""

    relay: Relay
    stream: bool
    fold: Translation | None = None


def prepare(
    caller: Codec,
    request: Request,
    upstream: UpstreamRecord,
    model: str,
    observation: Observation,
    identity: tuple[str, int],
    *,
    stream_whole: bool = False,
    anew: bool = False,
) -> Prepared:
    """InvalidRequest when no protocol of this upstream can carry the task.

    `stream_whole`: a whole answer is asked for as a stream, where that says the same, so that silence can be told.
    `anew`: nothing is passed through, so that another attempt's stream can be gone on with.
    Where `caller` is Watching, the answer goes through the neutral form, whoever answers.
    """
    odd = frozenset(upstream.quirks)
    if upstream.local and any(image.url is not None for image in images_of(request)):
        raise InternalError("An engine of ours must not be told the address of an image.")
    request = quirks.adapt(request, odd) if odd else request
    same = not anew and caller.name in upstream.protocols and not quirks.must_translate(request, odd)
    stream_whole = stream_whole and not request.stream and isinstance(request.task, Conversation | Prompts)
    watched = isinstance(caller, Watching)
    fold = not request.stream and (stream_whole or (watched and (request.may_end or request.timed)))
    if same and (fold or watched) and not (request.own or (request.unusual and (fold or upstream.local))):
        return _read(caller, request, upstream, model, observation, identity, fold=fold)
    if same and not watched and not request.may_end and not (upstream.local and (request.unusual or request.own)):
        body = quirks.dress(caller.rewrite_request(request, model), request, odd)
        passing = caller.passthrough(request, observation)
        if isinstance(passing, Renaming):
            passing.rename(identity[0])
        headers = {**own_headers(caller, request), **quirks.headers(odd, stream=request.stream)}
        path = _path(caller, request, model, stream=request.stream)
        return Prepared(caller, body, path, headers, passing, request.stream, model=model)
    if request.own:
        why = f", whose answers guardrails read ({caller.watchers})," if isinstance(caller, Watching) else ""
        message = f"The model '{request.model}'{why} cannot honour '{request.own[0]}'."
        raise InvalidRequest(message, param=request.own[0])
    spoken = spoken_with(request, upstream)
    transform: ForcedTools | Echoed | None = None
    if "forced_tools_by_schema" in odd and _forces_a_tool(request):
        transform = ForcedTools()
    elif quirks.must_echo(request, odd):
        transform = Echoed(request)
    outgoing = transform.rewrite(request) if transform else request
    fold = not request.stream and (stream_whole or request.timed or request.may_end or quirks.must_stream(request, odd))
    reading = quirks.for_reading(request, odd)
    relay = Translation(caller, spoken, request, observation, identity, quirks=reading, transform=transform)
    stream = request.stream or fold
    body = quirks.dress(spoken.encode_request(outgoing, model, stream=stream), request, odd)
    headers = {**own_headers(spoken, request), **quirks.headers(odd, stream=stream)}
    path = _path(spoken, request, model, stream=stream)
    return Prepared(spoken, body, path, headers, relay, stream, relay if fold else None, model=model)


def _read(
    caller: Codec,
    request: Request,
    upstream: UpstreamRecord,
    model: str,
    observation: Observation,
    identity: tuple[str, int],
    *,
    fold: bool,
) -> Prepared:
    """The caller's own body, whose answer is read. `fold`: but asking for a stream, which is collected."""
    odd, stream = frozenset(upstream.quirks), request.stream or fold
    spoken = caller.inner if isinstance(caller, Watching) else caller
    body = spoken.rewrite_request(replace(request, stream=stream), model)
    body = quirks.dress(quirks.streaming(body) if fold else body, request, odd)
    reading = quirks.for_reading(request, odd)
    relay = Translation(caller, spoken, request, observation, identity, quirks=reading)
    headers = {**own_headers(spoken, request), **quirks.headers(odd, stream=stream)}
    path = _path(spoken, request, model, stream=stream)
    return Prepared(spoken, body, path, headers, relay, stream, relay if fold else None, model=model)


def _path(spoken: Codec, request: Request, model: str, *, stream: bool) -> str:
    return spoken.path_of(request, model, stream=stream) if isinstance(spoken, Addressed) else spoken.path


def own_headers(spoken: Codec, request: Request) -> Mapping[str, str]:
    """What a protocol says in headers."""
    return spoken.upstream_headers(request) if isinstance(spoken, ReadsHeaders) else {}


def spoken_with(request: Request, upstream: UpstreamRecord) -> Codec:
    for name in upstream.protocols:
        spoken = codec(name)
        if isinstance(request.task, spoken.tasks):
            return spoken
    asked = _TASKS[type(request.task)]
    raise InvalidRequest(f"The model '{request.model}' does not take {asked}.", param="model")


def can_carry(request: Request, upstream: UpstreamRecord) -> bool:
    return any(isinstance(request.task, codec(name).tasks) for name in upstream.protocols)


_TASKS: dict[type, str] = {
    Conversation: "chat",
    Prompts: "text completions",
    Embeddings: "texts to embed",
    Rerank: "documents to rank",
}


def _forces_a_tool(request: Request) -> bool:
    choice = request.task.tool_choice if isinstance(request.task, Conversation) else None
    return choice is not None and choice.mode is ToolMode.REQUIRED
