"""What a client makes of an answer to chaos: whole, rescued, a clean error, or something that must never happen."""

import json
import re
from dataclasses import dataclass

from tokenworks.chaos.answers import TEXT
from tokenworks.chaos.cases import SPARE
from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event, Failed, Finished, TextDelta
from tokenworks.protocols.base import Codec

ANSWERED, RESCUED, CLEAN, VIOLATION = "answered", "rescued", "clean error", "violation"
GRACE = 0.5
"""Seconds above the bound: a busy machine's, not the gateway's."""


_PRIVATE = re.compile(rf"^The upstream answered \d+: |\b({re.escape(SPARE)})?\d+\.(?=[a-z])")
"""What is said of a run and not of a configuration: that our reader takes the gateway for an upstream, and the numbers
in the names of the private stack."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`share` is the time it took, of the bound."""

    verdict: str
    why: str
    seconds: float
    share: float


def judge(
    codec: Codec, status: int, headers: dict[str, str], body: bytes, seconds: float, bound: float, *, stream: bool
) -> Verdict:
    def found(verdict: str, why: str = "") -> Verdict:
        return Verdict(verdict, _PRIVATE.sub("", why), seconds, seconds / bound)

    if seconds > bound + GRACE:
        return found(VIOLATION, f"the caller waited {seconds:.1f} s, the route's limit is {bound:g} s")
    good = RESCUED if b"x-tokenworks-attempts" in body or headers.get("x-tokenworks-attempts", "1") != "1" else ANSWERED
    if headers.get("x-tokenworks-provider", "").startswith(SPARE):
        good = RESCUED  # the first one's circuit was open
    if status != 200 or (not stream and _is_error(body)):
        return found(CLEAN, _told(body)) if _is_error(body) else found(VIOLATION, f"{status} without a reason")
    try:
        events = _read(codec, body) if stream else codec.read_response(body)
    except (TokenworksError, ValueError) as error:
        return found(VIOLATION, f"an answer that cannot be read: {error}")
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    failures = [event.error for event in events if isinstance(event, Failed)]
    if not TEXT.startswith(text):
        return found(VIOLATION, f"the words were altered: {text!r}")
    if failures:
        return found(CLEAN, failures[0].message)
    if text != TEXT or not any(isinstance(event, Finished) for event in events):
        return found(VIOLATION, f"a part was passed off as the whole: {text!r}")
    return found(good)


def _read(codec: Codec, body: bytes) -> list[Event]:
    reader = codec.stream_reader()
    return reader.feed(body) + reader.close()


def _is_error(body: bytes) -> bool:
    try:
        decoded = json.loads(body)
    except ValueError:
        return False
    return isinstance(decoded, dict) and bool(decoded.get("error"))


def _told(body: bytes) -> str:
    error = json.loads(body)["error"]
    return str(error.get("message") if isinstance(error, dict) else error)
