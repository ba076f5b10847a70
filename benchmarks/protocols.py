"""Codecs alone: decoding requests, passing chunks through, translating them. Prints a table."""

import json
import statistics
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from tokenworks.core.events import Started, TextDelta
from tokenworks.core.request import Request
from tokenworks.protocols import PROTOCOLS, codec
from tokenworks.protocols.base import Observation
from tokenworks.protocols.translation import Translation

ROUNDS, CHUNKS = 5, 20_000


def main() -> None:
    table = Table(title=f"Protocols on one core (median of {ROUNDS})")
    for column in ("", "measured", "target"):
        table.add_column(column, justify="left" if not column else "right")
    chat = codec("openai_chat")
    request = chat.decode_request(b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}')
    chunks = _chunks()

    def through(name: str) -> Callable[[], None]:
        spoken, said = codec(name), _streamed(name)
        asked = spoken.decode_request(_ASKED[name])

        def run() -> None:
            relay = spoken.passthrough(asked, Observation())
            for chunk in said:
                relay.feed(chunk)

        return run

    def translated(caller: str) -> Callable[[], None]:
        def run() -> None:
            relay = Translation(codec(caller), chat, request, Observation(), ("id", 1))
            for chunk in chunks:
                relay.feed(chunk)

        return run

    body = _large_request()
    for name in _ASKED:
        rate = CHUNKS / _median(through(name))
        table.add_row(f"{name} passed through, chunks/s", f"{rate:,.0f}", "40,000")
    for caller in ("openai_chat", "anthropic_messages", "openai_responses"):
        if caller in PROTOCOLS:
            rate = CHUNKS / _median(translated(caller))
            table.add_row(f"openai_chat -> {caller}, chunks/s", f"{rate:,.0f}", "15,000")
    seconds = _median(lambda: _repeat(lambda: chat.decode_request(body), 50)) / 50
    table.add_row(f"decode {len(body) // 1024} KB with 50 tools, ms", f"{seconds * 1000:.2f}", "1")
    small = b'{"model":"m","messages":[{"role":"user","content":"Hello, who are you?"}],"max_tokens":64}'
    seconds = _median(lambda: _repeat(lambda: chat.decode_request(small), 2000)) / 2000
    table.add_row("decode a small request, us", f"{seconds * 1e6:.0f}", "")
    Console().print(table)


_ASKED = {
    "openai_chat": b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"stream":true}',
    "anthropic_messages": b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}],"stream":true}',
    "openai_responses": b'{"model":"m","input":"Hi","stream":true}',
}


def _streamed(name: str) -> list[bytes]:
    """One event of a text each, after the beginning."""
    writer = codec(name).stream_writer(codec(name).decode_request(_ASKED[name]), "id", 1)
    head = writer.feed(Started("id", "m")) + writer.feed(TextDelta("word"))
    return [head, *[writer.feed(TextDelta(f" word{n}")) for n in range(CHUNKS - 1)]]


def _median(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _repeat(work: Callable[[], Request], times: int) -> None:
    for _ in range(times):
        work()


def _chunks() -> list[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    bodies = [
        {**head, "choices": [{"index": 0, "delta": {"content": f" word{n}"}, "finish_reason": None}]}
        for n in range(CHUNKS)
    ]
    return [b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies]


def _large_request() -> bytes:
    tools = [
        {
            "type": "function",
            "function": {
                "name": f"tool_{n}",
                "description": "Does something useful with its arguments. " * 8,
                "parameters": {
                    "type": "object",
                    "properties": {f"argument_{i}": {"type": "string", "description": "x" * 40} for i in range(12)},
                },
            },
        }
        for n in range(50)
    ]
    messages = [{"role": "user", "content": "word " * 4000}]
    return json.dumps({"model": "m", "messages": messages, "tools": tools}).encode()
