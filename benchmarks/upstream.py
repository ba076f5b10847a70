"""An upstream that streams: every chunk is a write of its own, as engines send them.

`python -m benchmarks.upstream PORT`.
"""

import asyncio
import json
import sys

import uvloop

from benchmarks.processes import STREAM_CHUNKS

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunks() -> list[bytes]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    bodies = [
        {**head, "choices": [{"index": 0, "delta": {"content": f" word{n}"}, "finish_reason": None}]}
        for n in range(STREAM_CHUNKS)
    ]
    bodies.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 12, "completion_tokens": STREAM_CHUNKS, "total_tokens": 12 + STREAM_CHUNKS}
    bodies.append({**head, "choices": [], "usage": usage})
    events = [b"data: " + json.dumps(body).encode() + b"\n\n" for body in bodies] + [b"data: [DONE]\n\n"]
    return [b"%x\r\n%s\r\n" % (len(event), event) for event in events] + [b"0\r\n\r\n"]


class Streaming(asyncio.Protocol):
    pieces = chunks()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        _, sized, length = head.lower().partition(b"content-length: ")
        if end and (len(body) >= int(length.split(b"\r\n")[0]) if sized else body.endswith(b"0\r\n\r\n")):
            self.received = b""
            self.transport.write(HEAD)
            self.send(0)

    def send(self, position: int) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(self.pieces[position])
        if position + 1 < len(self.pieces):
            asyncio.get_running_loop().call_soon(self.send, position + 1)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Streaming, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
