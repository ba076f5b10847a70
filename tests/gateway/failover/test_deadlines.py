"""Engines are told how long their answer is wanted, and nobody is asked for one that nobody wants any more."""

import asyncio
import itertools
import json
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from tests.gateway.conftest import KEY, publish_and_wait

from tokenworks.protocols.worker import types as wire
from tokenworks.protocols.worker.framing import encode
from tokenworks.snapshot.records import FREE, LimitsRecord, ModelRecord, PolicyRecord, TargetRecord, UpstreamRecord

TOTAL = 8.0
PAUSE = 0.3
"""Seconds that the engine takes which fails."""
_numbers = itertools.count()
WHOLE = (wire.Started("w-1", "m"), wire.Tokens((1,), "Hello"), wire.Finish("stop"), wire.Usage(1, output=1))


@pytest.fixture
def engines(gateway: Any) -> Any:
    """Two that speak the worker protocol, `first` and `second`, behind the model "engines"."""
    root = f"http://127.0.0.1:{gateway.upstream.port}"
    records = [
        UpstreamRecord(name, "local/llama", ("worker",), f"{root}/{name}{wire.PREFIX}", local=True)
        for name in ("first", "second")
    ]
    limits = LimitsRecord(connect=1.0, first_token=5.0, idle=5.0, total=TOTAL)
    targets = tuple(TargetRecord(each.id, "m") for each in records)
    policy = PolicyRecord(retries=2, hedge=0, breaker=0)
    model = ModelRecord("engines", 1, targets, limits, (FREE,), policy=policy)
    state = gateway.control._state
    models, upstreams = {**state.models, model.name: model}, {**state.upstreams, **{each.id: each for each in records}}
    publish_and_wait(gateway, replace(state, revision=state.revision + 1, models=models, upstreams=upstreams))
    return gateway


def _question() -> list[dict[str, str]]:
    """A new one: where the same was answered before, its prompt is warm."""
    return [{"role": "user", "content": f"Hi {next(_numbers)}"}]


def ask(gateway: Any, path: str = "/v1/chat/completions", stream: bool = False, **headers: str) -> tuple[int, Any]:
    """(status, body): of a stream its text."""
    body = {"model": "engines", "max_tokens": 5, "stream": stream, "messages": _question()}
    request = urllib.request.Request(
        gateway.url + path,
        json.dumps(body).encode(),
        {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode() if stream else json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def frames(*events: wire.Event) -> web.Response:
    return web.Response(body=b"".join(encode(each) for each in events), content_type=wire.FRAMES.decode())


async def answers(request: web.Request, seen: Any) -> web.Response:
    return frames(*WHOLE)


async def overdue(request: web.Request, seen: Any) -> web.Response:
    return frames(WHOLE[0], wire.Error("The request's deadline has passed.", 503, wire.OVERDUE))


async def silence(request: web.Request, seen: Any) -> web.Response:
    await asyncio.sleep(60)
    return frames()


async def slowly_refuses(request: web.Request, seen: Any) -> web.Response:
    if seen.path.startswith("/first/"):
        await asyncio.sleep(PAUSE)
        return web.json_response({"error": {"message": "no"}}, status=500)
    return frames(*WHOLE)


def generated(gateway: Any) -> list[Any]:
    """The requests for answers that the engines saw: they are asked for other things, too."""
    return [each for each in gateway.upstream.seen if each.path.endswith("/generate")]


def asked(gateway: Any) -> list[str]:
    return [each.path.split("/")[1] for each in generated(gateway)]


def test_an_engine_is_told_what_is_left_of_the_total_limit(engines: Any) -> None:
    engines.upstream.script = slowly_refuses
    status, _ = ask(engines)
    first, second = [each.body["deadline"] for each in generated(engines)]
    assert (status, asked(engines)) == (200, ["first", "second"])
    assert TOTAL - PAUSE < first <= TOTAL
    assert 0 < second <= first - PAUSE


def test_a_caller_may_want_it_sooner_but_not_later(engines: Any) -> None:
    engines.upstream.script = answers
    for said, most in (("2.5", 2.5), ("1000", TOTAL)):
        engines.upstream.seen.clear()
        assert ask(engines, **{"x-tokenworks-timeout": said})[0] == 200
        assert 0 < generated(engines)[0].body["deadline"] <= most


@pytest.mark.parametrize("script", [silence, overdue])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_what_is_over_is_over_and_nobody_else_is_asked(engines: Any, script: Any, path: str) -> None:
    """Whether the gateway sees it first, or the engine says it."""
    engines.upstream.script = script
    status, body = ask(engines, path, **({"x-tokenworks-timeout": "1"} if script is silence else {}))
    assert (status, asked(engines)) == (504, ["first"])
    told = body["error"]
    assert told["type"] == "timeout_error" if path == "/v1/messages" else told["code"] == "total_timeout"
    assert "did not finish" in body["error"]["message"]
    if script is silence:
        assert generated(engines)[0].closed.wait(10)


def test_in_a_stream_it_is_an_error_and_no_end(engines: Any) -> None:
    engines.upstream.script = overdue
    status, body = ask(engines, stream=True)
    assert '"total_timeout"' in json.dumps(body)
    assert (status, asked(engines)) == (504, ["first"])


def test_time_that_is_over_before_anybody_was_asked(engines: Any) -> None:
    status, body = ask(engines, **{"x-tokenworks-timeout": "0.000001"})
    assert (status, asked(engines)) == (504, [])
    assert body["error"]["message"] == "The request's time was over before anybody was asked."


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan", "inf"])
def test_what_is_no_time_is_refused_by_name(engines: Any, said: str) -> None:
    status, body = ask(engines, **{"x-tokenworks-timeout": said})
    assert (status, body["error"]["param"]) == (400, "x-tokenworks-timeout")
