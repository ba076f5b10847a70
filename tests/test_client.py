import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tokenworks.client import Address, CannotConnect, Client, ClientError


@pytest.mark.parametrize(
    ("text", "url", "shown"),
    [
        ("unix:/run/a.sock", "http://localhost/x", "unix:/run/a.sock"),
        ("unix:/run/a.sock|/v1", "http://localhost/v1/x", "unix:/run/a.sock|/v1"),
        ("unix:/run/a.sock|/v1/", "http://localhost/v1/x", "unix:/run/a.sock|/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/x", "http://127.0.0.1:8080"),
        ("https://host/a/b/", "https://host/a/b/x", "https://host/a/b"),
        ("http://[::1]:80/p", "http://[::1]:80/p/x", "http://[::1]:80/p"),
    ],
)
def test_addresses(text: str, url: str, shown: str) -> None:
    address = Address.parse(text)
    assert address.url("/x") == url
    assert str(address) == shown
    assert Address.parse(shown) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:80",
        "unix:relative.sock",
        "unix:/a.sock|v1",
        "http://",
        "http://h:99999",
        "ftp://h",
        "http://u:p@h",
        "http://h?q=1",
    ],
)
def test_bad_addresses_are_named(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Address.parse(text)


async def _echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "token": request.headers.get("authorization"),
            "type": request.headers.get("content-type"),
            "body": (await request.read()).decode(),
        }
    )


def with_server(
    socket: Path,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    use: Callable[[Client], Awaitable[None]],
    timeout: float = 10,
) -> None:
    async def run() -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(socket)).start()
        try:
            async with Client(f"unix:{socket}|/base", token="secret", timeout=timeout) as client:
                await use(client)
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_what_is_sent(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        got = await client.post("/a%2Fb", {"x": "é"})
        assert got["path"] == "/base/a%2Fb"
        assert (got["method"], got["token"], got["type"]) == ("POST", "Bearer secret", "application/json")
        assert json.loads(got["body"]) == {"x": "é"}
        assert (await client.get("/a", {"q": "1 &2"}))["path"] == "/base/a?q=1+%262"
        assert (await client.put("/a", [1]))["body"] == "[1]"
        assert (await client.delete("/a"))["method"] == "DELETE"
        assert json.loads(await client.post_bytes("/a", b"raw"))["body"] == "raw"
        assert json.loads(await client.get_bytes("/a"))["method"] == "GET"

    with_server(tmp_path / "s", _echo, use)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        ('{"error": {"message": "no such key", "code": "not_found"}}', "no such key", "not_found"),
        ('{"error": {"message": "odd", "code": null}}', "odd", ""),
        ('{"error": "text"}', '{"error": "text"}', ""),
        ("<html>", "<html>", ""),
        ("", "HTTP status 404", ""),
        ("[]", "[]", ""),
    ],
)
def test_errors(tmp_path: Path, body: str, message: str, code: str) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=404, text=body)

    async def use(client: Client) -> None:
        with pytest.raises(ClientError) as caught:
            await client.get("/x")
        assert (caught.value.status, caught.value.message, caught.value.code) == (404, message, code)
        async with client.stream("GET", "/x", check=False) as response:
            assert response.status == 404

    with_server(tmp_path / "s", refuse, use)


def test_an_answer_that_is_no_json_says_so(tmp_path: Path) -> None:
    async def text(_: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def empty(_: web.Request) -> web.Response:
        return web.Response(status=204)

    async def use_text(client: Client) -> None:
        with pytest.raises(ClientError, match="no JSON: 'hello'"):
            await client.get("/x")

    async def use_empty(client: Client) -> None:
        assert await client.delete("/x") is None

    with_server(tmp_path / "a", text, use_text)
    with_server(tmp_path / "b", empty, use_empty)


def test_nothing_listens(tmp_path: Path) -> None:
    async def run(address: str) -> None:
        async with Client(address, remedy="start it with: tokenworks control") as client:
            with pytest.raises(CannotConnect) as caught:
                await client.get("/x")
            assert caught.value.status == 503
            assert caught.value.code == "cannot_connect"
            assert address in caught.value.message
            assert caught.value.message.endswith("start it with: tokenworks control")

    asyncio.run(run(f"unix:{tmp_path}/none.sock"))
    asyncio.run(run("http://127.0.0.1:1"))


def test_silence_and_a_cut_are_bounded(tmp_path: Path) -> None:
    async def silent(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"begin")
        if request.path.endswith("cut"):
            assert request.transport is not None
            request.transport.close()
        else:
            await asyncio.sleep(5)
        return response

    async def use(client: Client) -> None:
        for path in ("/silent", "/cut"):
            seen = b""
            with pytest.raises(CannotConnect):
                async with client.stream("GET", path, idle=0.2) as response:
                    async for chunk in response.content.iter_any():
                        seen += chunk
            assert seen == b"begin"
        with pytest.raises(CannotConnect, match="in time"):
            await client.get_bytes("/silent", timeout=0.2)

    with_server(tmp_path / "s", silent, use)


def test_a_stream_goes_both_ways(tmp_path: Path) -> None:
    async def double(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-kind": request.headers["x-kind"]})
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk * 2)
        return response

    async def parts():  # type: ignore[no-untyped-def]
        yield b"a"
        yield b"b"

    async def use(client: Client) -> None:
        async with client.stream("POST", "/x", body=parts(), headers={"x-kind": "k"}) as response:
            assert response.headers["x-kind"] == "k"
            assert sorted(await response.read()) == sorted(b"aabb")

    with_server(tmp_path / "s", double, use)
