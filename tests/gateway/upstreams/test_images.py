"""What becomes of a request's images before an engine of ours gets it. The whole way: tests/clients/test_kinds.py."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tokenworks.core.errors import InternalError, InvalidRequest
from tokenworks.core.request import Request
from tokenworks.gateway.upstreams import images as module
from tokenworks.gateway.upstreams.images import MOST_FETCHED, Images, blame, images_of
from tokenworks.gateway.upstreams.prepare import prepare
from tokenworks.protocols import codec
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import UpstreamRecord

CHAT = codec("openai_chat")
GIF = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"
LOCAL = UpstreamRecord("u", "local/u", ("openai_chat",), "http://u", local=True)


def asking(*urls: str) -> Request:
    images = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "?"}, *images]}]}
    return CHAT.decode_request(json.dumps(body).encode())


def with_host(work: Callable[[str, list[str]], Awaitable[None]]) -> None:
    """`work` gets the address of a host of images, and what it is asked for."""

    async def run() -> None:
        asked: list[str] = []

        async def answer(request: web.Request) -> web.StreamResponse:
            asked.append(request.path)
            if request.path == "/endless":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(bytes(65536))
            if request.path == "/packed":
                assert request.headers["accept-encoding"] == "identity"
                return web.Response(body=gzip.compress(GIF), headers={"content-encoding": "gzip"})
            return web.Response(body=GIF)

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            await work(f"http://127.0.0.1:{port}", asked)
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_what_an_engine_of_ours_gets_names_no_address() -> None:
    async def work(host: str, asked: list[str]) -> None:
        request = asking(f"{host}/a", "data:image/png;base64,R0lGODlhAQABAAAAADs=")
        with pytest.raises(InternalError):
            prepare(CHAT, request, LOCAL, "m", Observation(), ("id", 0))
        await Images({"127.0.0.1"}).bring(request)
        await Images().bring(request)  # for another attempt: nothing is fetched again
        assert asked == ["/a"]
        assert [image.media_type for image in images_of(request)] == ["image/gif", "image/gif"], "whatever was said"
        body = prepare(CHAT, request, LOCAL, "m", Observation(), ("id", 0)).body
        assert host.encode() not in body
        assert body.count(b"data:image/gif;base64,R0lGODlhAQABAAAAADs=") == 2

    with_host(work)


def test_what_is_packed_is_not_unpacked() -> None:
    async def work(host: str, asked: list[str]) -> None:
        with pytest.raises(InvalidRequest, match="is none that this model reads"):
            await Images({"127.0.0.1"}).bring(asking(f"{host}/packed"))
        assert asked == ["/packed"]

    with_host(work)


def test_a_providers_endpoint_is_told_the_address() -> None:
    request = asking("http://10.0.0.1/a.png")
    far = UpstreamRecord("u", "far", ("openai_chat",), "http://u")
    assert b"http://10.0.0.1/a.png" in prepare(CHAT, request, far, "m", Observation(), ("id", 0)).body


def test_too_much_to_fetch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(module._Room.__init__, "__defaults__", (1_000_000,))

    async def work(host: str, asked: list[str]) -> None:
        images = Images({"127.0.0.1"})
        with pytest.raises(InvalidRequest, match="together") as large:
            await images.bring(asking(f"{host}/a", f"{host}/endless"))
        assert large.value.param == "messages[0].content[2].image_url.url"
        asked.clear()
        with pytest.raises(InvalidRequest, match=f"At most {MOST_FETCHED} images") as many:
            await images.bring(asking(*[f"{host}/{number}" for number in range(MOST_FETCHED + 1)]))
        assert many.value.param == f"messages[0].content[{MOST_FETCHED + 1}].image_url.url"
        assert asked == []

    with_host(work)


def test_a_host_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", module.aiohttp.ClientTimeout(total=0.2))

    async def run() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(InvalidRequest, match="no answer in time"):
                await Images({"127.0.0.1"}).bring(asking(f"http://127.0.0.1:{port}/a"))

    asyncio.run(run())


@pytest.mark.parametrize(
    ("urls", "said", "param", "expected"),
    [
        (("http://a/",), "Failed to load image or audio file", None, "messages[0].content[1].image_url.url"),
        (("http://a/", "http://b/"), "Failed to load image or audio file", None, "messages"),
        (("http://a/",), "an image?", "seed", "seed"),
        (("http://a/",), "top_k must be positive", None, None),
        ((), "no image input here", None, "messages"),
    ],
)
def test_an_image_that_an_engine_cannot_read_gets_its_place(
    urls: Any, said: str, param: str | None, expected: str | None
) -> None:
    error = InvalidRequest(said, param=param)
    blame(error, asking(*urls))
    assert error.param == expected
