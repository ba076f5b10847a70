"""A text's vector from a model that this gateway serves: a request of the same caller, held and metered."""

import time

import msgspec

from tokenworks.core import request_ids
from tokenworks.core.caller import Caller
from tokenworks.core.errors import UpstreamBroken
from tokenworks.core.events import Vector
from tokenworks.gateway.batches.collect import CollectingExchange
from tokenworks.gateway.batches.line import Serve
from tokenworks.gateway.caching.similar import Embed
from tokenworks.protocols.base import Codec

_ENCODE = msgspec.json.Encoder().encode


def embedding(serve: Serve, codec: Codec, path: str) -> Embed:
    """`codec` is what asks for vectors, at `path`. The caller's key need not name the model: its operator did."""

    async def embed(model: str, text: str, caller: Caller) -> list[float]:
        exchange = CollectingExchange(path, request_ids.new())
        exchange.codec = codec
        request = codec.decode_request(_ENCODE({"model": model, "input": text}))
        anyone = Caller(caller.key_id, caller.project_id, caller.organization_id, None, caller.regions)
        try:
            await serve(exchange, codec, anyone, request, time.perf_counter_ns(), 1)
        finally:
            exchange.close()
        vectors = [event for event in codec.read_response(bytes(exchange.body)) if isinstance(event, Vector)]
        if len(vectors) != 1:
            raise UpstreamBroken(f"{model} gave {len(vectors)} vectors for one text.")
        return vectors[0].values

    return embed
