"""Where webhooks and images may be. Real name resolution of names that every machine knows; no packet leaves it."""

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tokenworks.core.errors import InvalidRequest
from tokenworks.outside import Forbidden, PublicResolver, check_url, connector, is_public


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "2002:808:808::1"])
def test_the_public_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "100.100.100.200", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "::", "::1",
        "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "2002:7f00:1::1", "2002:a00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
def test_everything_else(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("url", ["https://hooks.example.com/a?b=c", "http://8.8.8.8:8080/", "https://[2606:4700::1]/"])
def test_urls_that_may_be_called(url: str) -> None:
    check_url(url, ())


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/", "file:///etc/passwd", "//example.com/", "http://", "http:///x", "nonsense", "",
        "http://localhost/", "http://a.localhost/", "http://127.0.0.1/", "http://127.1/", "http://2130706433/",
        "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data", "http://user:pass@example.com/", "http://example.com:0/",
        "http://example.com:99999/", "http://exa mple.com/", "http://example.com/\r\nx: y",
        f"http://example.com/{'x' * 2000}",
        "http://[::1", "gopher://example.com",
    ],
)  # fmt: skip
def test_urls_that_may_not(url: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_url(url, ())
    assert raised.value.param == "webhook"


def test_a_host_of_the_operators_may_be_called() -> None:
    check_url("http://127.0.0.1:1/", {"127.0.0.1"})
    check_url("http://hooks.internal/", {"hooks.internal"})
    with pytest.raises(InvalidRequest):
        check_url("http://10.0.0.1/", {"127.0.0.1"})


def test_a_name_is_judged_by_what_it_resolves_to() -> None:
    async def run() -> None:
        refusing, allowing = PublicResolver(()), PublicResolver({"localhost"})
        with pytest.raises(Forbidden):
            await refusing.resolve("localhost", 80, socket.AF_INET)
        assert [each["host"] for each in await allowing.resolve("localhost", 80, socket.AF_INET)] == ["127.0.0.1"]
        await refusing.close()
        await allowing.close()

    asyncio.run(run())


def test_no_connection_is_made_to_a_private_address_and_no_redirect_is_followed() -> None:
    seen: list[str] = []

    async def hook(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=307, headers={"location": "/elsewhere"})

    async def run() -> int:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", hook)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with aiohttp.ClientSession(connector=connector(())) as session:
                with pytest.raises(aiohttp.ClientConnectorError):
                    await session.post(f"http://localhost:{port}/a")
            assert seen == []
            async with (
                aiohttp.ClientSession(connector=connector({"localhost"})) as session,
                session.post(f"http://localhost:{port}/b", allow_redirects=False) as response,
            ):
                return response.status
        finally:
            await runner.cleanup()

    assert asyncio.run(run()) == 307
    assert seen == ["/b"]


def test_addresses_are_looked_up_anew_each_time() -> None:
    async def run() -> Any:
        made = connector(())
        try:
            return made.use_dns_cache, made.force_close
        finally:
            await made.close()

    assert asyncio.run(run()) == (False, True)
