"""A place of one's own for webhooks."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Takes webhooks, after refusing the first `refusals` of them."""

    def __init__(self, refusals: int = 0) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.refusals = refusals
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
                refused = len(receiver.seen) <= receiver.refusals
                self.send_response(503 if refused else 204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.seen]
