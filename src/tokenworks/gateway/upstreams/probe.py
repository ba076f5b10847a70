"""The smallest real request to an upstream, on the serving path: what /readyz and the circuit breaker ask with."""

from tokenworks.core.messages import Message, Role, Text
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank
from tokenworks.core.target import RouteLimits
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import UpstreamRecord

LIMITS = RouteLimits(connect=2.0, first_token=10.0, idle=10.0, total=10.0)
QUESTIONS: dict[type, tuple[str, Conversation | Prompts | Embeddings | Rerank]] = {
    Conversation: ("openai_chat", Conversation([Message(Role.USER, [Text("Hi")])])),
    Prompts: ("openai_completions", Prompts(["Hi"])),
    Embeddings: ("openai_embeddings", Embeddings(["Hi"])),
    Rerank: ("rerank", Rerank("Hi", ["Hi"])),
}


class Probe:
    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    async def ask(
        self, upstream: UpstreamRecord, model: str, task: type = Conversation, limits: RouteLimits = LIMITS
    ) -> None:
        """Raises the error that a caller would get. Nobody is billed. Text is streamed, as most callers want it: an
        upstream that is silent, or cuts its streams, is not well again because it can still send a status line."""
        protocol, question = QUESTIONS[task]
        caller = codec(protocol)
        stream = task in (Conversation, Prompts)
        request = Request(model=model, task=question, protocol=protocol, max_output_tokens=1, stream=stream)
        request.body = caller.encode_request(request, model, stream=stream)
        seen = Observation()
        prepared = prepare(caller, request, upstream, model, seen, ("probe", 0))
        with Watchdog(limits, upstream.provider, lambda: None, stream=stream) as dog:
            async with self._upstreams.call(upstream, prepared, limits) as answer:
                if not stream:
                    prepared.relay.whole(await answer.read())
                    return
                async for chunk in answer.chunks():
                    prepared.relay.feed(chunk)
                    if seen.deltas:
                        dog.progress()
                prepared.relay.close()
