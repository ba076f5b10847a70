"""Callers that ask without pause, and what usage and ledger must say of it afterwards."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

CALLERS = 6
WORDS = 12
NUMBERS = "one two three four five six seven eight nine ten eleven twelve"


class Load:
    """Callers that ask without pause, half of them streaming; remembers what each answer was.

    `urls`: the gateways they ask, where it is not the server's only one. `long`: words that the last caller asks for.
    """

    def __init__(self, server: Any, model: str, urls: Sequence[str] = (), long: int = WORDS) -> None:
        self.answered: dict[str, int] = {}
        """Output tokens by request id of the answers that were complete."""
        self.charged: dict[str, int] = {}
        """Nano-dollars that their callers were told, the same."""
        self.cut: dict[str, int] = {}
        """Pieces of output by request id of the streams whose connection broke."""
        self.asked = 0
        self.outcomes: Counter[str] = Counter()
        self.garbled: list[bytes] = []
        self._answered_by: Counter[str] = Counter()
        self._urls = urls or (server.url,)
        self._key = server.api_key
        self._model = model
        self._long = long
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(CALLERS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a caller hangs"

    def _run(self, number: int) -> None:
        url = self._urls[number // 2 % len(self._urls)]
        while not self._stop.is_set():
            try:
                self._ask(url, self._long if number == CALLERS - 1 else WORDS, stream=number % 2 == 1)
            except (OSError, http.client.HTTPException):
                self._count("no connection")
                time.sleep(0.05)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1

    def _ask(self, url: str, words: int, *, stream: bool) -> None:
        host, port = url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        messages = [{"role": "user", "content": " ".join(islice(cycle(NUMBERS.split()), words))}]
        body = {"model": self._model, "messages": messages, "max_tokens": words, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        try:
            headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            with self._lock:
                self.asked += 1
            response = connection.getresponse()
            request_id = response.getheader("x-request-id") or ""
            try:
                read = response.read()
            except http.client.IncompleteRead as broken:
                if stream:
                    self.cut[request_id] = broken.partial.count(b'"content":')
                raise
            self._judge(url, response.status, request_id, read, stream=stream)
        finally:
            connection.close()

    def _judge(self, url: str, status: int, request_id: str, body: bytes, *, stream: bool) -> None:
        if status != 200:
            self._count(json.loads(body)["error"]["code"])
            time.sleep(0.05)
        elif stream and not body.endswith(b"data: [DONE]\n\n"):
            last = json.loads(body.strip().split(b"\n\n")[-1].removeprefix(b"data: "))
            self._count(last["error"]["code"] if "error" in last else self._garble(body))
        else:
            whole = json.loads(body.strip().split(b"\n\n")[-2].removeprefix(b"data: ") if stream else body)
            with self._lock:
                self.answered[request_id] = whole["usage"]["completion_tokens"]
                self.charged[request_id] = whole["usage"].get("cost_nano_usd", 0)
                self._answered_by[url] += 1
            self._count("answered")

    def _garble(self, body: bytes) -> str:
        self.garbled.append(body)
        return "cut"

    def wait_for(self, more: int, patience: float = 60.0, but: str = "") -> None:
        """Until every gateway, `but` one perhaps, has answered so often again."""
        goals = {url: self._answered_by[url] + more for url in self._urls if url != but}
        deadline = time.monotonic() + patience
        while any(self._answered_by[url] < goal for url, goal in goals.items()):
            assert time.monotonic() < deadline, f"no service: {self.outcomes}"
            time.sleep(0.01)


def usage_rows(server: Any) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {}
    after = ""
    while True:
        status, page = server.call("GET", f"/admin/v1/usage?limit=1000{after}", key=server.admin_key)
        assert status == 200, page
        for row in page["data"]:
            rows.setdefault(row["request_id"], []).append(row)
        if not page["has_more"]:
            return rows
        after = f"&after={page['last_id']}"


def complete(server: Any, load: Load) -> bool:
    """Every answered request is billed once, with the tokens and the money that its caller was told."""
    rows = usage_rows(server)
    for request_id, tokens in load.answered.items():
        billed = [row for row in rows.get(request_id, []) if row["outcome"] == "completed"]
        if [(row["usage"]["output"], row["charge"]) for row in billed] != [(tokens, load.charged[request_id])]:
            return False
    return not any(row["outcome"] == "open" for found in rows.values() for row in found)


def ledger_differences(server: Any) -> list[str]:
    """What the ledger, added up entry by entry, says otherwise than usage."""
    status, found = server.call("GET", "/admin/v1/billing/check", key=server.admin_key)
    assert status == 200, found
    return found["differences"]
