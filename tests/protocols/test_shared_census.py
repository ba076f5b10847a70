"""Every recorded exchange is of a protocol that we call, whose own test reads it, or of an endpoint that nothing here
calls, which is listed; and every recorded error of those that we call is told by its kind."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import Fault
from tokenworks.protocols import codec

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
CALLED = {
    r"/chat/completions$": "openai_chat",
    r"/responses$": "openai_responses",
    r"^/v1/messages$": "anthropic_messages",
    r"/embeddings$": "openai_embeddings",
    r"/converse(-stream)?$": "bedrock_converse",
    r"^/v2/(chat|embed)$": "cohere",
}
NOT_CALLED = (
    # Gemini and Vertex are called in the protocols that they share with others.
    r":(generate|streamGenerate|batchEmbed|embed)Contents?$|:(countTokens|predict)$",
    r"/invoke$",  # Bedrock is called by Converse
    r"/count_tokens$|/input_tokens$|/compact$",
    r"/files(/|$)|/responses/[a-z]+_\w+$|/responses/resp",
)
KINDS = {Fault.CALLER, Fault.UNSUITABLE, Fault.RATE_LIMIT, Fault.CONTEXT_LENGTH, Fault.CONTENT_POLICY}

pytestmark = pytest.mark.skipif(not RECORDED.exists(), reason=f"the recorded exchanges are not at {RECORDED}")


@cache
def exchanges() -> dict[str, tuple[str | None, Any]]:
    """By file: its protocol, None where none of ours calls it, and the exchange."""
    found = {}
    for path in sorted(RECORDED.glob("*/*.json")):
        exchange = json.loads(path.read_text())
        asked = exchange["request"]["path"].partition("?")[0].partition("#")[0]
        spoken = next((name for pattern, name in CALLED.items() if re.search(pattern, asked)), None)
        if spoken is None:
            assert any(re.search(pattern, asked) for pattern in NOT_CALLED), f"{path}: {asked} is of nothing we know"
        found[f"{path.parent.name}/{path.name}"] = spoken, exchange
    return found


def test_every_exchange_is_accounted_for() -> None:
    counts = Counter(spoken for spoken, _ in exchanges().values())
    assert sum(counts.values()) > 1000
    assert {name for name in counts if name is not None} == set(CALLED.values())


def test_every_error_is_told_by_its_kind() -> None:
    told = 0
    for name, (spoken, exchange) in exchanges().items():
        response = exchange["response"]
        if spoken is None or response["status"] < 400:
            continue
        body = response["body"] if isinstance(response["body"], str) else json.dumps(response["body"])
        error = codec(spoken).read_error(response["status"], body.encode(), provider="p", retry_after=None)
        assert error.fault in KINDS, name
        assert error.message and error.upstream_status == response["status"]
        told += 1
    assert told > 20


def test_every_whole_answer_becomes_events() -> None:
    """What each protocol's own test looks into; here, that none is left out."""
    read = 0
    for name, (spoken, exchange) in exchanges().items():
        response = exchange["response"]
        is_answer = isinstance(response["body"], dict) and "base64" not in response["body"]
        ended = not isinstance(response["body"], dict) or response["body"].get("status") not in (
            "queued",
            "in_progress",
        )
        if spoken and response["status"] == 200 and is_answer and ended:
            assert codec(spoken).read_response(json.dumps(response["body"]).encode()), name
            read += 1
    assert read > 700
