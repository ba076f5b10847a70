"""Every provider that comes with the product: complete, with specimens and a line in the docs."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tokenworks.config import reader
from tokenworks.config.catalog import known_providers
from tokenworks.core.request import Conversation
from tokenworks.gateway.upstreams import quirks
from tokenworks.gateway.upstreams.providers import WAYS, way
from tokenworks.gateway.upstreams.waits import retry_after
from tokenworks.protocols import PROTOCOLS, codec
from tokenworks.protocols.base import ReadsHeaders

ROOT = Path(__file__).parents[2]
PROVIDERS = known_providers(PROTOCOLS)
RECORDED = ROOT / "tests" / "recorded" / "providers"
WANTED = {"chat.response", "chat.stream", "tool_call.response", "tool_call.stream", "usage.response", "errors.json"}
NO_TOOLS = {"replicate"}
"""Its protocol has none."""
CAPABILITIES = {"tools", "vision", "json_schema", "reasoning", "embeddings", "rerank"}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_no_specimens_without_a_row() -> None:
    assert {path.name for path in RECORDED.iterdir()} == PROVIDERS.keys()


def test_the_ways_that_a_file_may_name_are_those_that_there_are() -> None:
    assert sorted(reader.WAYS) == sorted(WAYS)
    for name in WAYS:
        assert way(name).tell


def test_the_quirks_that_a_file_may_name_are_those_that_there_are() -> None:
    assert set(reader.QUIRKS) == quirks.KNOWN


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_row_has_its_specimens(name: str) -> None:
    missing = WANTED - {path.name for path in (RECORDED / name).iterdir()}
    assert missing == ({"tool_call.response", "tool_call.stream"} if name in NO_TOOLS else set())


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_row_is_sound(name: str) -> None:
    row = PROVIDERS[name]
    assert isinstance(Conversation([]), codec(row.protocols[0]).tasks), "the first protocol is the one for chat"
    assert set(row.capabilities or ()) <= CAPABILITIES
    assert set(row.missing) <= {"region", "resource", "project", "host"}
    assert all(re.fullmatch(r"env:[A-Z_:0-9]+", key) for key in row.api_keys)


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_error_is_of_its_kind(name: str) -> None:
    spoken = codec(PROVIDERS[name].protocols[0])
    for specimen in json.loads((RECORDED / name / "errors.json").read_text()):
        wait = retry_after(specimen.get("headers", {}), NOW)
        body = json.dumps(specimen["body"]).encode()
        error = spoken.read_error(specimen["status"], body, provider=name, retry_after=wait)
        assert error.fault == specimen["fault"], specimen
        if "retry_after" in specimen:
            assert error.retry_after == specimen["retry_after"], specimen


@pytest.mark.parametrize("name", sorted(PROVIDERS))
def test_every_row_takes_a_request(name: str) -> None:
    """In its first protocol, with what that protocol says in headers."""
    spoken = codec(PROVIDERS[name].protocols[0])
    chat = codec("openai_chat")
    request = chat.decode_request(b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5}')
    assert json.loads(spoken.encode_request(request, "model-x", stream=True))
    assert spoken.headers("key")
    assert not isinstance(spoken, ReadsHeaders) or isinstance(spoken.upstream_headers(request), dict)


def shown(value: object) -> str:
    return "unknown" if value in ("", None) else str(value)


def table() -> str:
    """docs/providers.md has it; where it differs, this is what to paste there."""
    lines = ["| name | protocols | key | needs | jurisdiction | retention | trains |", "|---|---|---|---|---|---|---|"]
    for name, row in PROVIDERS.items():
        keys = ", ".join(f"`{key.removeprefix('env:')}`" for key in row.api_keys) or "none"
        needs = ", ".join(f"`{each}`" for each in row.missing)
        kept = {None: "unknown", 0: "none", 3600: "1 hour"}.get(row.retention, f"{(row.retention or 0) // 86400} days")
        trains = {None: "unknown", True: "yes", False: "no"}[row.trains]
        protocols = ", ".join(row.protocols)
        lines.append(f"| `{name}` | {protocols} | {keys} | {needs} | {shown(row.jurisdiction)} | {kept} | {trains} |")
    return "\n".join(lines)


def test_the_docs_have_every_row_as_it_is() -> None:
    assert table() in (ROOT / "docs" / "providers.md").read_text(), f"paste this:\n{table()}"


def test_the_example_of_the_docs_is_a_configuration() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "providers.md").read_text(), re.DOTALL)
    found = reader.parse(example, file="x", protocols=PROTOCOLS, engines=None, known_providers=PROVIDERS)
    assert found.providers["bedrock-eu"].url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
    assert len(found.providers["groq"].api_keys) == 2
