"""Every recorded exchange is of a protocol that we call, whose own test reads it, or of an endpoint that nothing here
calls, which is listed; and every recorded error of those that we call is told by its kind."""

import base64
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenworks.core.errors import Fault
from tokenworks.core.events import Failed, Finished
from tokenworks.protocols import codec

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "recorded"
CALLED = {
    r"/chat/completions$": "openai_chat",
    r"/responses(/resp_\w+)?$": "openai_responses",
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
    r"/files(/|$)",
)
FAMILIES = {"anthropic": "anthropic_messages", "bedrock": "bedrock_converse", "openai": "openai_responses"}
"""What their other endpoints tell errors in; those of Google in that of the endpoint which we call."""
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
        if response["status"] < 400:
            continue
        spoken = spoken or FAMILIES.get(name.partition("/")[0], "openai_chat")
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


def test_every_stream_is_read_to_its_end() -> None:
    """Or to the error that the provider told in it."""
    read, failures = 0, []
    for name, (spoken, exchange) in exchanges().items():
        body = exchange["response"]["body"]
        encoded = body.get("base64") if isinstance(body, dict) else None
        if spoken is None or exchange["response"]["status"] != 200 or not (encoded or isinstance(body, str)):
            continue
        reader = codec(spoken).stream_reader()
        events = reader.feed(base64.b64decode(encoded) if encoded else body.encode()) + reader.close()
        failed = [event.error.fault for event in events if isinstance(event, Failed)]
        assert failed or any(isinstance(event, Finished) for event in events), name
        read, failures = read + 1, failures + failed
    assert read > 60
    assert failures == [Fault.CALLER], failures
