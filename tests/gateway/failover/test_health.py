"""What one request learns for the next: circuits, pauses, lateness; and that no fault leaves anything behind."""

import time
from typing import Any

from tokenworks.snapshot.records import LimitsRecord, PolicyRecord

LEARNING = PolicyRecord(retries=0, hedge=0, breaker=3)
PATIENT = LimitsRecord(connect=5.0, first_token=10.0, idle=10.0, total=30.0)
"""For answers that are only late when the machine is busy."""


def until(probe: Any, seconds: float = 15.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"nothing within {seconds} s")


def asked(place: Any, server: str, model: str) -> int:
    return int(place.servers[server].requests[model])


def test_a_circuit_opens_fails_fast_and_is_closed_by_probes_alone(place: Any, whole_text: str) -> None:
    """With a single target: nobody else could answer, and still no caller pays for finding out."""
    name = place.model("a/broken/switch", policy=LEARNING, limits=PATIENT)
    place.servers["a"].switch = "error-500"
    assert [place.ask(name, stream=False).error["code"] for _ in range(3)] == ["upstream_broken"] * 3
    refused = place.ask(name, stream=False)
    assert (refused.status, refused.error["code"]) == (503, "upstream_circuit_open")
    assert refused.headers["retry-after"] == "1"
    before = asked(place, "a", "broken/switch")
    until(lambda: asked(place, "a", "broken/switch") > before)  # a probe, while it is still broken
    assert place.ask(name, stream=False).status == 503
    place.servers["a"].switch = "ok"
    told = until(lambda: (found := place.ask(name)).status == 200 and found)
    assert (told.text, told.complete) == (whole_text, True)


def test_an_open_circuit_is_passed_over_while_somebody_else_answers(place: Any, whole_text: str) -> None:
    name = place.model("a/over/error-500", "b/ok", policy=LEARNING, limits=PATIENT)
    told = [place.ask(name, stream=False) for _ in range(8)]
    assert {one.text for one in told} == {whole_text}
    attempts = [one.named("attempts") for one in told]
    assert attempts[:3] == ["2", "2", "2"]
    assert attempts[3:] == ["1"] * 5  # only probes ask the first one now


def test_a_rate_limit_is_remembered_for_as_long_as_it_said(place: Any) -> None:
    name = place.model("m/paused/rate-limited", "b/ok", policy=LEARNING, limits=PATIENT)
    assert place.ask(name, stream=False).named("attempts") == "2"
    assert place.ask(name, stream=False).named("attempts") == "1"
    assert asked(place, "m", "paused/rate-limited") == 1
    until(lambda: place.ask(name, stream=False).named("attempts") == "2", 5)


def test_a_late_first_token_is_hedged_once_lateness_is_known(place: Any, whole_text: str) -> None:
    policy = PolicyRecord(retries=0, hedge=0.9, breaker=0)
    patient = LimitsRecord(connect=1.0, first_token=5.0, idle=1.0, total=8.0)
    name = place.model("a/hedged/switch", "b/ok", policy=policy, limits=patient)
    place.servers["a"].switch = "ok"
    for _ in range(22):
        assert place.ask(name).named("provider") == "provider-a"
    place.servers["a"].switch = "slow-first-token"
    begun = time.monotonic()
    told = place.ask(name)
    assert time.monotonic() - begun < patient.first_token
    assert (told.text, told.complete) == (whole_text, True)
    assert told.named("provider") == "provider-b"
    settled = place.attempts(told)
    assert sorted(record.outcome for record in settled) == ["completed", "overtaken"]
    assert sum(record.charge for record in settled) == 10 + 12 * 1000
    until(lambda: place.servers["a"].connections <= 1)  # the loser was cancelled at its upstream
