"""One real token from a replica of ours, on the serving path: what /readyz and later the breaker ask for."""

from tokenworks.core.messages import Message, Role, Text
from tokenworks.core.request import Conversation, Request
from tokenworks.core.target import RouteLimits
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.gateway.upstreams.watchdog import Watchdog
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import UpstreamRecord

LIMITS = RouteLimits(connect=2.0, first_token=10.0, idle=10.0, total=10.0)
PROTOCOL = "openai_chat"


class Probe:
    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    async def generate(self, upstream: UpstreamRecord, model: str) -> None:
        """Raises the UpstreamError that a caller would get. Nothing is billed."""
        caller = codec(PROTOCOL)
        task = Conversation([Message(Role.USER, [Text("Hi")])])
        request = Request(model=model, task=task, protocol=PROTOCOL, max_output_tokens=1)
        request.body = caller.encode_request(request, model, stream=False)
        prepared = prepare(caller, request, upstream, model, Observation(), ("probe", 0))
        with Watchdog(LIMITS, upstream.provider, lambda: None, stream=False):
            async with self._upstreams.call(upstream, prepared, LIMITS) as answer:
                prepared.relay.whole(await answer.read())
