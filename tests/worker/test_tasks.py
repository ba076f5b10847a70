"""What an engine states that it can do, it does; what it does not state, it refuses in words. The same for every engine
of weights: it is called as the gateway calls it, and read as the caller is answered.
"""

import asyncio
import base64
import http.client
import io
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from PIL import Image
from tests import tiny
from tests.worker.conftest import UnixConnection

from tokenworks.client import Address
from tokenworks.core.errors import ContextLengthExceeded, InvalidRequest
from tokenworks.gateway.upstreams.images import Images
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.worker.engines import engine_class
from tokenworks.worker.engines.base import Description, EngineFailed, Setup

TOKENS = 6
QUESTION = {"type": "text", "text": "What is it?"}


def picture(colour: str) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (40, 24), colour).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]
"""(the caller's protocol, its body) -> its answer. InvalidRequest when it is refused."""


def chat(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}], "max_tokens": TOKENS, "temperature": 0, **more}


async def writes(ask: Ask) -> None:
    answer = await ask("openai_chat", chat(QUESTION))
    assert answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == TOKENS
    assert (await ask("openai_chat", chat(QUESTION)))["choices"] == answer["choices"]
    text = await ask("openai_completions", {"prompt": "Once", "max_tokens": TOKENS, "temperature": 0})
    assert text["usage"]["completion_tokens"] == TOKENS


async def follows_a_schema(ask: Ask) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    answer = await ask("openai_chat", chat(QUESTION, response_format=form) | {"max_tokens": 60})
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["a"], bool)


async def embeds(ask: Ask) -> None:
    answer = await ask("openai_embeddings", {"input": ["the cat", "a dog", "the cat"]})
    first, second, again = (one["embedding"] for one in answer["data"])
    assert first == pytest.approx(again, abs=1e-5) != second
    assert sum(value * value for value in first) == pytest.approx(1)
    assert answer["usage"]["prompt_tokens"] == 3 * 4
    with pytest.raises(ContextLengthExceeded) as refused:
        await ask("openai_embeddings", {"input": ["a", "the " * 100]})
    assert refused.value.param == "input[1]"


async def ranks(ask: Ask) -> None:
    answer = await ask("rerank", {"query": "the cat", "documents": ["a dog", "the cat sat", "paris"]})
    scores = [result["relevance_score"] for result in answer["results"]]
    assert sorted(scores, reverse=True) == scores
    assert all(0 < score < 1 for score in scores)
    assert sorted(result["index"] for result in answer["results"]) == [0, 1, 2]
    assert answer["usage"]["prompt_tokens"] > 0


async def sees(ask: Ask) -> None:
    bare, red, blue, again = [
        await ask("openai_chat", chat(QUESTION, *[picture(colour) for colour in colours]))
        for colours in ((), ("red",), ("blue",), ("red",))
    ]
    texts = [answer["choices"][0]["message"]["content"] for answer in (bare, red, blue)]
    assert len(set(texts)) == 3
    assert again["choices"][0]["message"]["content"] == texts[1]
    assert red["usage"]["prompt_tokens"] > bare["usage"]["prompt_tokens"]


TASKS = {"": writes, "json_schema": follows_a_schema, "embeddings": embeds, "rerank": ranks, "vision": sees}
"""By the capability that states them; what has none is to write."""
QUESTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "": ("openai_chat", chat(QUESTION)),
    "embeddings": ("openai_embeddings", {"input": "the cat"}),
    "rerank": ("rerank", {"query": "the cat", "documents": ["a dog"]}),
    "vision": ("openai_chat", chat(QUESTION, picture("red"))),
}
WEIGHTS: dict[str, Callable[[Path], object]] = {
    "writes": tiny.decoder,
    "embeds": lambda path: tiny.encoder(path, pooling=gguf.PoolingType.MEAN),
    "ranks": lambda path: tiny.encoder(path, pooling=gguf.PoolingType.RANK),
    "sees": tiny.decoder,
}
Case = tuple[set[str], set[str]]
CASES: dict[tuple[str, str], Case | str] = {
    ("llama", "writes"): ({"", "tools", "json_schema"}, {"vision"}),
    ("llama", "embeds"): ({"embeddings"}, {"", "vision"}),
    ("llama", "ranks"): ({"rerank"}, {"", "embeddings"}),
    ("llama", "sees"): ({"", "tools", "json_schema"}, {"vision"}),
    ("llama_server", "writes"): ({"", "json_schema"}, {"embeddings", "rerank"}),
    ("llama_server", "embeds"): "is for embeddings, which llama_server does not do: --engine llama does",
    ("llama_server", "ranks"): "is for rerank, which llama_server does not do: --engine llama does",
    ("llama_server", "sees"): ({"", "json_schema", "vision"}, {"embeddings", "rerank"}),
}
"""What an engine states of weights of each kind, and what it refuses; or why it does not take them at all."""


def asking(described: Description) -> Ask:
    socket, _, path = described.base_url.removeprefix("unix:").partition("|")
    upstream = UpstreamRecord(
        "u", "local/u", described.protocols, described.base_url, quirks=described.quirks, local=True
    )

    async def ask(protocol: str, body: dict[str, Any]) -> Any:
        caller = codec(protocol)
        request = caller.decode_request(json.dumps({"model": "m", **body}).encode())
        await Images().bring(request)
        prepared = prepare(caller, request, upstream, "m", Observation(), ("id", 0))
        status, answer = await asyncio.to_thread(post, socket, path + prepared.path, prepared.body)
        if status != 200:
            raise prepared.codec.read_error(status, answer, provider="u", retry_after=None)
        return json.loads(prepared.relay.whole(answer))

    return ask


def post(socket: str, path: str, body: bytes) -> tuple[int, bytes]:
    connection: http.client.HTTPConnection = UnixConnection(socket)
    try:
        connection.request("POST", path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("engine", "kind"), CASES)
def test_an_engine_does_what_it_states_and_refuses_the_rest(engine: str, kind: str, tmp_path: Path) -> None:
    weights, case = tmp_path / "weights.gguf", CASES[engine, kind]
    WEIGHTS[kind](weights)

    async def run(address: Address) -> None:
        capabilities, options = ("vision",) if kind == "sees" else (), {"slots": "2", "context": "512"}
        found = engine_class(engine)(Setup("m", address, options=options, capabilities=capabilities))
        if kind == "sees" and found.sees:
            found.projector = tiny.projector(tmp_path / "projector.gguf")
        try:
            if isinstance(case, str):
                with pytest.raises(EngineFailed, match=case):
                    await found.start(weights)
                return
            stated, refused = case
            await found.start(weights)
            assert {*found.describe().capabilities} == stated - {""}
            ask = asking(found.describe())
            for capability in stated & TASKS.keys():
                await TASKS[capability](ask)
            for capability in refused:
                with pytest.raises(InvalidRequest):
                    await ask(*QUESTIONS[capability])
        finally:
            await found.stop()

    with tempfile.TemporaryDirectory(prefix="tw-") as directory:
        asyncio.run(asyncio.wait_for(run(Address.parse(f"unix:{directory}/e.sock")), 120))
