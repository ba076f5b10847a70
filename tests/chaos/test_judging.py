"""What the scorecard calls a violation, and how it looks."""

import json

import pytest

from tokenworks.chaos.answers import TEXT, WORDS
from tokenworks.chaos.cases import BOUND, Case, cases, scaled
from tokenworks.chaos.judging import judge
from tokenworks.chaos.run import Result
from tokenworks.cli import output
from tokenworks.cli.chaos import _explain, _scorecard
from tokenworks.core.target import RouteLimits
from tokenworks.protocols import codec

CHAT = codec("openai_chat")


def chunks(*words: str, end: bytes = b"") -> bytes:
    made = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in made) + end


FINISH = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
ERROR = b'data: {"error": {"message": "it broke", "code": "upstream_broken"}}\n\n'
COMMENT = b": x-tokenworks-provider=second, x-tokenworks-attempts=2\n\n"


@pytest.mark.parametrize(
    ("body", "verdict", "why"),
    [
        (chunks(*WORDS, end=FINISH), "answered", ""),
        (chunks(*WORDS, end=COMMENT + FINISH), "rescued", ""),
        (chunks(*WORDS[:3], end=ERROR), "clean error", "it broke"),
        (chunks(*WORDS[:3], end=FINISH), "violation", "a part was passed off as the whole"),
        (chunks(*WORDS[:3]), "violation", "a part was passed off as the whole"),
        (chunks(*WORDS), "violation", "a part was passed off as the whole"),
        (chunks(*WORDS[:3], *WORDS, end=FINISH), "violation", "the words were altered"),
        (chunks(*WORDS[1:], end=ERROR), "violation", "the words were altered"),
        (b"data: {garbled\n\n", "violation", "cannot be read"),
        (b"", "violation", "a part was passed off as the whole"),
    ],
)
def test_streams(body: bytes, verdict: str, why: str) -> None:
    found = judge(CHAT, 200, {}, body, 1.0, 4.0, stream=True)
    assert (found.verdict, found.share) == (verdict, 0.25)
    assert why in found.why


@pytest.mark.parametrize(
    ("status", "body", "seconds", "verdict"),
    [
        (200, {"choices": [{"index": 0, "message": {"content": TEXT}, "finish_reason": "stop"}]}, 1, "answered"),
        (200, {"choices": [{"index": 0, "message": {"content": TEXT[:9]}, "finish_reason": "stop"}]}, 1, "violation"),
        (200, {"choices": [{"index": 0, "message": {"content": TEXT}, "finish_reason": "stop"}]}, 9, "violation"),
        (503, {"error": {"message": "busy"}}, 1, "clean error"),
        (200, {"error": {"message": "busy, and padded"}}, 1, "clean error"),
        (503, ["busy"], 1, "violation"),
        (500, None, 1, "violation"),
    ],
)
def test_whole_answers(status: int, body: object, seconds: float, verdict: str) -> None:
    assert judge(CHAT, status, {}, json.dumps(body).encode(), seconds, 4.0, stream=False).verdict == verdict


def test_limits_keep_their_proportions_within_reason() -> None:
    assert scaled(RouteLimits(2, 60, 30, 600)) == RouteLimits(0.4, 0.4, 0.4, BOUND)
    assert scaled(RouteLimits(2, 20, 10, 40)) == RouteLimits(0.4, 2.0, 1.0, BOUND)


def test_the_card_shows_the_worst_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Case] = cases(["assistant"], ["cut"])
    assert len(found) == 2 * 3 * 2
    good = judge(CHAT, 200, {}, chunks(*WORDS, end=COMMENT + FINISH), 1.0, BOUND, stream=True)
    bad = judge(CHAT, 200, {}, chunks("The", end=FINISH), 2.0, BOUND, stream=True)
    results = [Result(case, bad if number == 0 else good) for number, case in enumerate(found)]
    with output.console.capture() as captured:
        output.console.print(_scorecard("assistant", results))
        _explain(results)
    said = captured.get()
    assert "violation ✗" in said
    assert "50%" in said
    assert "rescued" in said
    assert "cut, fallback" in said
    assert "11 of 12 as good as can be" in said
