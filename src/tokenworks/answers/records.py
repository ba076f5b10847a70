"""Records of the answers calls, MessagePack on the wire. Fields are only ever added, with a default.

An answer is made once and then belongs to whoever runs it until it has ended: each save renews the lease, and says
what the body is now and which stream events came since. The first ending stands, whoever says it: the gateway that
ran it, a caller who cancelled it through another one, or control, when the lease ran out. A save's reply says so.
"""

import zlib

import msgspec

PATH = "/internal/v1/answers"
LEASE_SECONDS = 10.0
"""After so long without a save a gateway is taken for dead, and what it ran has failed."""
SAVE_SECONDS = 1.0
"""How often a gateway saves at least what it runs."""
LARGEST_SAVE = 64 * 1024 * 1024
LONGEST_CHAIN = 500
"""Answers that one conversation may consist of."""
LARGEST_CHAIN = 32 * 1024 * 1024

RESPONSE = "response"
PREDICTION = "prediction"
COMPLETION = "chat_completion"

_BLOCKS: msgspec.msgpack.Decoder[list[bytes]] = msgspec.msgpack.Decoder(list[bytes])


class Events(msgspec.Struct, frozen=True):
    """Stream events number `first` to `first + count - 1`, packed."""

    first: int
    count: int
    packed: bytes

    def blocks(self) -> list[bytes]:
        return _BLOCKS.decode(zlib.decompress(self.packed))


def pack(first: int, blocks: list[bytes]) -> Events:
    """Events repeat themselves: they shrink to a tenth at the lowest level."""
    return Events(first, len(blocks), zlib.compress(msgspec.msgpack.encode(blocks), 1))


class WebhookRecord(msgspec.Struct, frozen=True):
    """Who wants to hear: `events` of start, output, logs, completed."""

    url: str
    events: tuple[str, ...]


class Save(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an answer is now. `body` is the object as its caller sees it, JSON; `input` what it was asked, JSON.

    `create` is false for every save but the first: an answer that was deleted meanwhile is not made again. `progress`
    names what is new since the last save, for webhooks: output, logs.
    """

    kind: str
    project_id: str
    model: str
    status: str
    created_at: int
    body: bytes
    create: bool = False
    ended: bool = False
    previous_id: str | None = None
    input: bytes = b"[]"
    events: Events | None = None
    webhook: WebhookRecord | None = None
    progress: tuple[str, ...] = ()


class Revision(msgspec.Struct, frozen=True):
    """Another body for an answer that has ended."""

    kind: str
    project_id: str
    body: bytes


class Saved(msgspec.Struct, frozen=True):
    """What stands. `ended` without the save having said so: somebody else ended or deleted it."""

    status: str
    ended: bool


class AnswerRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    kind: str
    model: str
    status: str
    ended: bool
    created_at: int
    body: bytes
    previous_id: str | None = None
    input: bytes = b"[]"
    event_count: int = 0


class EventsRecord(msgspec.Struct, frozen=True):
    """The events that were asked for and are there; `answer` is what it was at the same moment."""

    answer: AnswerRecord
    events: list[Events]


class Page(msgspec.Struct, frozen=True):
    """Newest first."""

    answers: list[AnswerRecord]
    more: bool
