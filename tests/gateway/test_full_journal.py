"""A real gateway that cannot write down what leaves: nothing leaves, callers are told to come back, and it heals."""

import resource
from typing import Any

import httpx2
from tests.gateway.conftest import running_gateway, wait_for

BODY = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]}
NO_LIMIT = resource.RLIM_INFINITY


def ask(gateway: Any) -> httpx2.Response:
    headers = {"Authorization": "Bearer sk-tw-test-key"}
    return httpx2.post(f"{gateway.url}/v1/chat/completions", headers=headers, json=BODY, timeout=20)


def test_what_cannot_be_journaled_does_not_leave(servers: Any) -> None:
    with running_gateway(servers) as gateway:
        assert ask(gateway).status_code == 200
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, NO_LIMIT))  # every file is full from now on
        wait_for(lambda: ask(gateway).status_code == 503)
        seen = len(gateway.upstream.seen)
        refused = ask(gateway)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "journal_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert len(gateway.upstream.seen) == seen
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (NO_LIMIT, NO_LIMIT))
        answer = wait_for(lambda: (said := ask(gateway)).status_code == 200 and said)
        assert gateway.control.settled(answer.headers["x-request-id"]).outcome == "completed"
