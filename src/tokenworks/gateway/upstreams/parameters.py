"""Which of the caller's parameters have no effect on an upstream: named in a header, or refused where asked for."""

from tokenworks.core.request import Request
from tokenworks.gateway.upstreams import quirks
from tokenworks.gateway.upstreams.prepare import Prepared
from tokenworks.protocols.carried import carried, lost, wire_name
from tokenworks.protocols.openai_chat.requests import TEMPLATE_ARGUMENTS, TOO_LONG
from tokenworks.protocols.translation import Translation
from tokenworks.protocols.validation import top_level
from tokenworks.protocols.worker.codec import CODEC as WORKER
from tokenworks.snapshot.records import UpstreamRecord

_ABOUT_THE_CALL = ("user", "metadata", "service_tier")
"""They change nothing about the answer, yet a provider that gets them has them."""
_DONE_ANYWAY = {TOO_LONG: b'"truncate"'}
"""What servers of engines do without being told."""
_USUAL_TIERS = ("auto", "default")


def without_effect(request: Request, upstream: UpstreamRecord, prepared: Prepared) -> list[str]:
    """By the caller's own names. A provider that gets the caller's bytes as they are judges for itself."""
    translated = isinstance(prepared.relay, Translation)
    if not translated and not upstream.local:
        return ["messages.reasoning_content"] if quirks.reasoning_lost(request, frozenset(upstream.quirks)) else []
    names = [*request.ignored, *(lost(request, prepared.codec) if translated else ())]
    reached = _reached(request, upstream, prepared) if names else set()
    if "reasoning_details" in upstream.quirks:
        reached |= {wire_name(proof, request) for proof in ("signature", "encrypted_content", "redacted_thinking")}
    if quirks.reasoning_lost(request, frozenset(upstream.quirks)):
        names.append("messages.reasoning_content")
    if request.keep:
        reached.add("metadata")  # they stay with the answer
    if upstream.local:
        if request.service_tier is not None and request.service_tier not in _USUAL_TIERS:
            names.append("service_tier")
        if request.salt is not None and prepared.codec is not WORKER:
            names.append(wire_name("salt", request))
        if "no_min_tokens" in upstream.quirks and quirks.min_tokens_lost(request):
            names.append("min_tokens")
    return [name for name in dict.fromkeys(names) if name not in reached]


def _reached(request: Request, upstream: UpstreamRecord, prepared: Prepared) -> set[str]:
    """Those that do have an effect although the codec that read them cannot know it."""
    members = top_level(request.body)
    if not upstream.local:
        known = carried(prepared.codec, type(request.task))
        told = [field for field in _ABOUT_THE_CALL if field in known and getattr(request, field)]
        sent = top_level(prepared.body)
        same = {name for name, value in members.items() if sent.get(name) == value}
        return same | {wire_name(field, request) for field in told}
    done = {name for name, value in _DONE_ANYWAY.items() if name in members and bytes(members[name]) == value}
    if prepared.codec is WORKER:
        return done | {TEMPLATE_ARGUMENTS, TOO_LONG}
    return done | ({TEMPLATE_ARGUMENTS} if "reasoning_by_template" in upstream.quirks else set())
