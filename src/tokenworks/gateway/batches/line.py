"""One line of a batch through the pipeline: its result, or that it must wait."""

import time
from collections.abc import Awaitable, Callable

import structlog

from tokenworks.batches.records import ATTEMPTS_PER_RUN, LARGEST_RESULT, LineRecord, ResultRecord, ReturnedRecord
from tokenworks.core.caller import Caller
from tokenworks.core.errors import (
    InternalError,
    InvalidRequest,
    LimitReached,
    RequestTooLarge,
    TokenworksError,
    Unavailable,
    UpstreamBroken,
    UpstreamOverloaded,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from tokenworks.core.request import Request
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.batches.collect import CollectingExchange
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.routing import vocabulary
from tokenworks.journal.records import Settled
from tokenworks.protocols.base import Codec, OwnStatuses

MOST_FAILURES = 3
"""So often may upstreams break under a line; then that is its result."""
_WAIT = (LimitReached, Unavailable, UpstreamUnavailable, UpstreamOverloaded)
_BROKE = (UpstreamBroken, UpstreamTimeout, InternalError)

log = structlog.get_logger("tokenworks.gateway")


Serve = Callable[[Exchange, Codec, Caller, Request, int, int], Awaitable[Settled]]
"""What `Pipeline.serve` does, or somebody who adds to it."""


async def run(line: LineRecord, keys: Keys, codec: Codec, serve: Serve) -> ResultRecord | ReturnedRecord:
    """Never raises but when it is cancelled: whatever happens is a result, or a reason to try again later."""
    exchange = CollectingExchange(line.endpoint, line.request_id)
    exchange.codec = codec
    first = (line.run - 1) * ATTEMPTS_PER_RUN + 1
    try:
        caller = await keys.find(line.key_digest)
        request = vocabulary.decoded(codec.decode_request, line.body, ())
        if request.options.get("background"):
            raise InvalidRequest("'background' has no meaning in a batch.", param="background")
        request.batch = True
        settled = await serve(exchange, codec, caller, request, time.perf_counter_ns(), first)
        body = one_line(exchange.body)
        if len(body) > LARGEST_RESULT:
            raise RequestTooLarge(f"The answer has {len(body)} bytes; a batch keeps at most {LARGEST_RESULT} of each.")
    except _WAIT:
        return ReturnedRecord(*line.id)
    except TokenworksError as error:
        if isinstance(error, _BROKE) and line.failures + 1 < MOST_FAILURES:
            return ReturnedRecord(*line.id, broke=True)
        return _failed(line, exchange, error)
    except Exception:  # a bug that one line brings out is that line's result; the others go on
        log.exception("a bug", request_id=line.request_id, path=line.endpoint)
        return _failed(line, exchange, InternalError(f"Something broke on our side. Request id {line.request_id}."))
    finally:
        exchange.close()
    usage = settled.usage
    return ResultRecord(
        *line.id, 200, body, usage.input, usage.cached_input, usage.cache_write, usage.output, usage.reasoning
    )


def _failed(line: LineRecord, exchange: CollectingExchange, error: TokenworksError) -> ResultRecord:
    codec = exchange.codec
    assert codec is not None  # noqa: S101 -- set before it was served
    status = codec.error_status(error) if isinstance(codec, OwnStatuses) else error.status
    return ResultRecord(*line.id, status, one_line(codec.encode_error(error)))


def one_line(body: bytes | bytearray) -> bytes:
    """JSON allows no line's end inside of a string, so outside of them a blank says the same."""
    return bytes(body).strip().replace(b"\r", b" ").replace(b"\n", b" ")
