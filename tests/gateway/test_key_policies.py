"""What a key may be used for, and from where, through a real gateway."""

import hashlib
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.gateway.edge.addresses import networks, origin, within
from tokenworks.snapshot.records import KeyRecord
from tokenworks.snapshot.state import State

BODY = {"model": "assistant", "messages": [{"role": "user", "content": "Hi"}]}
NEAR, FAR = "127.0.0.0/8", "203.0.113.0/24"


@pytest.fixture(scope="module")
def gateway_options() -> tuple[str, ...]:
    return ("--trusted-proxies", "127.0.0.1/32, 10.0.0.0/8")


@pytest.fixture
def key(gateway: Any) -> Iterator[Any]:
    """`key(scopes=..., networks=...)` is the secret of a key with this policy."""
    plain = gateway.control._state
    made = 0

    def make(**policy: Any) -> str:
        nonlocal made
        made += 1
        secret = f"sk-tw-{made}-{sorted(policy.items())}".replace(" ", "")
        digest = hashlib.sha256(secret.encode()).hexdigest()
        record = KeyRecord(f"key_{digest[:8]}", digest, "proj_1", "org_1", **policy)
        state = gateway.control._state
        gateway.control.publish(
            State.of(
                revision=state.revision,
                keys=[*state.keys.values(), record],
                models=list(state.models.values()),
                upstreams=list(state.upstreams.values()),
            )
        )
        return secret

    yield make
    gateway.control.publish(plain)


def ask(gateway: Any, key: str, path: str = "/v1/chat/completions", **headers: str) -> httpx2.Response:
    sent = {"Authorization": f"Bearer {key}", **headers}
    if path == "/v1/chat/completions":
        return httpx2.post(gateway.url + path, headers=sent, json=BODY, timeout=20)
    return httpx2.get(gateway.url + path, headers=sent, timeout=20)


def refused(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


def test_a_key_does_only_what_its_scopes_name(gateway: Any, key: Any) -> None:
    inference, files = key(scopes=("inference",)), key(scopes=("files",))
    assert ask(gateway, inference).status_code == 200
    assert refused(ask(gateway, files)) == (403, "scope_denied")
    assert "only for files" in ask(gateway, files).json()["error"]["message"]
    assert refused(ask(gateway, inference, "/v1/files")) == (403, "scope_denied")
    assert refused(ask(gateway, files, "/v1/batches")) == (403, "scope_denied")
    assert ask(gateway, inference, "/v1/messages/batches").status_code == 403
    assert ask(gateway, files, "/v1/models").status_code == 200


def test_the_refusal_comes_in_the_callers_protocol(gateway: Any, key: Any) -> None:
    answer = httpx2.post(
        f"{gateway.url}/v1/messages", headers={"x-api-key": key(scopes=("files",))}, json={}, timeout=20
    )
    assert answer.status_code == 403
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "permission_error"


def test_a_key_is_good_only_within_its_networks(gateway: Any, key: Any) -> None:
    near, far = key(networks=(NEAR,)), key(networks=(FAR, "2001:db8::/32"))
    assert ask(gateway, near).status_code == 200
    assert refused(ask(gateway, far)) == (403, "network_denied")
    assert "127.0.0.1" in ask(gateway, far).json()["error"]["message"]


def test_a_trusted_proxy_says_where_a_request_came_from(gateway: Any, key: Any) -> None:
    far = key(networks=(FAR,))
    assert ask(gateway, far, **{"X-Forwarded-For": "203.0.113.9"}).status_code == 200
    assert ask(gateway, far, **{"X-Forwarded-For": "203.0.113.9, 10.1.2.3"}).status_code == 200
    spoofed = ask(gateway, far, **{"X-Forwarded-For": "203.0.113.9, 198.51.100.1"})
    assert refused(spoofed) == (403, "network_denied")
    assert "198.51.100.1" in spoofed.json()["error"]["message"]


ADDRESSES = st.ip_addresses().map(str)


@given(ADDRESSES, st.lists(ADDRESSES))
def test_nobody_is_believed_unless_trusted(peer: str, chain: list[str]) -> None:
    found = origin(peer, ", ".join(chain).encode(), ())
    assert found == origin(peer, None, ())


@given(ADDRESSES, st.lists(ADDRESSES), ADDRESSES)
def test_what_a_caller_wrote_before_the_proxy_is_not_believed(caller: str, invented: list[str], wanted: str) -> None:
    proxies = networks(("10.0.0.0/8",))
    real = origin(caller, None, ())
    if within(real, proxies):
        return
    header = ", ".join([wanted, *invented, caller]).encode()
    assert origin("10.0.0.1", header, proxies) == real


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("::ffff:192.0.2.1", None, "192.0.2.1"),
        ("10.0.0.1", b"192.0.2.1:4711", "192.0.2.1"),
        ("10.0.0.1", b"[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", b"2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", b"unknown", "None"),
        ("10.0.0.1", b"", "None"),
        ("", None, "None"),
    ],
)
def test_addresses_as_they_are_written(peer: str, forwarded: bytes | None, expected: str) -> None:
    assert str(origin(peer, forwarded, networks(("10.0.0.0/8",)))) == expected
