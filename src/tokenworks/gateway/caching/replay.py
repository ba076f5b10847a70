"""An answer's bytes once more, under an id of their own."""

import re

import msgspec

from tokenworks.protocols.cost import repriced
from tokenworks.protocols.sse import Splitter, data_of


class _Named(msgspec.Struct):
    id: str = ""


class _Head(msgspec.Struct):
    """Of a whole answer, or of a stream's first event."""

    id: str = ""
    message: _Named = msgspec.field(default_factory=_Named)


_HEAD = msgspec.json.Decoder(_Head).decode


def id_of(piece: bytes, *, stream: bool) -> str:
    """Of the answer that begins so; "" when it has none."""
    splitter = Splitter()
    blocks = splitter.feed(piece) + splitter.close() if stream else [piece]
    for block in blocks:
        data = data_of(block) if stream else block
        if data is None:
            continue
        try:
            head = _HEAD(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return ""
        return head.id or head.message.id
    return ""


def again(pieces: list[bytes], was: str, now: str, charge: int) -> list[bytes]:
    """`pieces` under another id and at another price. What looks like the id inside a text has its quotes escaped."""
    if was:
        old = re.compile(rb'(?<!\\)("id"\s*:\s*)' + re.escape(msgspec.json.encode(was)))
        new = msgspec.json.encode(now)
        pieces = [old.sub(lambda found: found[1] + new, piece) for piece in pieces]
    return [repriced(piece, charge) for piece in pieces]
