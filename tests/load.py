"""Callers that ask without pause, and what usage and ledger must say of it afterwards."""

import http.client
import json
import threading
import time
from collections import Counter
from typing import Any

CALLERS = 6
WORDS = 12


class Load:
    """Callers that ask without pause, half of them streaming; remembers what each answer was."""

    def __init__(self, server: Any, model: str) -> None:
        self.answered: dict[str, int] = {}
        """Output tokens by request id of the answers that were complete."""
        self.charged: dict[str, int] = {}
        """Nano-dollars that their callers were told, the same."""
        self.outcomes: Counter[str] = Counter()
        self.garbled: list[bytes] = []
        self._server = server
        self._model = model
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
        while not self._stop.is_set():
            try:
                self._ask(stream=number % 2 == 1)
            except (OSError, http.client.HTTPException):
                self._count("no connection")
                time.sleep(0.05)

    def _count(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1

    def _ask(self, *, stream: bool) -> None:
        host, port = self._server.url.removeprefix("http://").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        messages = [{"role": "user", "content": "one two three four five six seven eight nine ten eleven twelve"}]
        body = {"model": self._model, "messages": messages, "max_tokens": WORDS, "stream": stream}
        if stream:
            body["stream_options"] = {"include_usage": True}
        try:
            headers = {"authorization": f"Bearer {self._server.api_key}", "content-type": "application/json"}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            self._judge(response.status, response.getheader("x-request-id") or "", response.read(), stream=stream)
        finally:
            connection.close()

    def _judge(self, status: int, request_id: str, body: bytes, *, stream: bool) -> None:
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
            self._count("answered")

    def _garble(self, body: bytes) -> str:
        self.garbled.append(body)
        return "cut"

    def wait_for(self, more: int, patience: float = 60.0) -> None:
        goal = self.outcomes["answered"] + more
        deadline = time.monotonic() + patience
        while self.outcomes["answered"] < goal:
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
