"""Thin typed client of Tokenworks' own HTTP interfaces, over TCP or a Unix socket.

Used by the command line, the gateway (to control) and the worker agent. It knows addresses, the bearer
token and the error shape; it knows no endpoint. Upstreams are called by gateway/upstreams, not by this.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import aiohttp
from yarl import URL

CONNECT_TIMEOUT = 5.0
SHOWN_BODY = 300


class ClientError(Exception):
    """The other side answered with an error; `code` is its machine-readable cause ("" when it named none)."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class CannotConnect(ClientError):
    """No answer came: nothing listens, or the connection broke or stayed silent. `status` is 503."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, "cannot_connect")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens: `http(s)://host[:port][/prefix]` or `unix:/path.sock[|/prefix]`."""

    origin: str
    """`scheme://host:port`; a fixed name for a Unix socket."""
    prefix: str = ""
    socket: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Address":
        if text.startswith("unix:"):
            socket, _, prefix = text.removeprefix("unix:").partition("|")
            if not socket.startswith("/"):
                raise ValueError(
                    f"address {text!r}: a Unix socket needs an absolute path, as in unix:/run/control.sock"
                )
            return cls("http://localhost", _prefix(text, prefix), socket)
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"address {text!r}: {error}") from error
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or "@" in parts.netloc
        ):
            raise ValueError(f"address {text!r} is neither http(s)://host:port nor unix:/path/to.sock")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        origin = f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"
        return cls(origin, _prefix(text, parts.path))

    def url(self, path: str) -> str:
        return f"{self.origin}{self.prefix}{path}"

    def connector(self, limit: int = 100) -> aiohttp.BaseConnector:
        """A new connection pool of at most `limit` connections; needs a running loop."""
        if self.socket is not None:
            return aiohttp.UnixConnector(self.socket, limit=limit)
        return aiohttp.TCPConnector(limit=limit)

    def __str__(self) -> str:
        if self.socket is None:
            return f"{self.origin}{self.prefix}"
        return f"unix:{self.socket}|{self.prefix}" if self.prefix else f"unix:{self.socket}"


def _prefix(text: str, prefix: str) -> str:
    if prefix and not prefix.startswith("/"):
        raise ValueError(f"address {text!r}: the path prefix {prefix!r} must start with /")
    return prefix.rstrip("/")


Query = Mapping[str, str | list[str]]
"""Of a request; a list is the same name several times."""


class Client:
    """One address, one token, one connection pool. Paths are given percent-encoded, with their leading slash.

    `remedy` ends the message of `CannotConnect`: what a person should do when nothing answers.
    """

    def __init__(
        self,
        address: Address | str,
        *,
        token: str = "",
        timeout: float = 30.0,
        remedy: str = "is it running, and is the address right?",
    ) -> None:
        self.address = Address.parse(address) if isinstance(address, str) else address
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        self._remedy = remedy
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, params: Query | None = None) -> Any:
        return await self._json("GET", path, params=params)

    async def post(
        self,
        path: str,
        body: Any = None,
        *,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        return await self._json("POST", path, body=body, timeout=timeout, headers=headers)

    async def put(self, path: str, body: Any = None) -> Any:
        return await self._json("PUT", path, body=body)

    async def delete(self, path: str) -> Any:
        return await self._json("DELETE", path)

    async def get_bytes(self, path: str, *, timeout: float | None = None) -> bytes:
        return await self._read("GET", path, timeout=timeout)

    async def post_bytes(
        self, path: str, body: bytes, *, params: Query | None = None, timeout: float | None = None
    ) -> bytes:
        return await self._read("POST", path, body=body, params=params, timeout=timeout)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Query | None = None,
        headers: Mapping[str, str] | None = None,
        idle: float | None = None,
        check: bool = True,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The raw response, for as long as it lasts; `idle` bounds the seconds of silence in it.

        `check` False hands error answers over too (a proxy wants them); `headers` go over our own.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=idle)
        async with self._open(method, path, body, params, headers, timeout, check) as response:
            yield response

    async def _json(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Query | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        raw = await self._read(method, path, body=body, params=params, timeout=timeout, headers=headers)
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            shown = raw[:SHOWN_BODY].decode(errors="replace")
            raise ClientError(502, f"{method} {path}: {self.address} answered no JSON: {shown!r}") from error

    async def _read(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        params: Query | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=timeout or self._timeout, sock_connect=CONNECT_TIMEOUT)
        async with self._open(method, path, body, params, headers, limits, check=True) as response:
            return await response.read()

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        path: str,
        body: Any,
        params: Query | None,
        headers: Mapping[str, str] | None,
        timeout: aiohttp.ClientTimeout,
        check: bool,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self.address.connector(), cookie_jar=aiohttp.DummyCookieJar(), headers=self._headers
            )
        query = f"?{urlencode(params, doseq=True)}" if params else ""
        sent = dict(headers or {})
        if body is not None and not isinstance(body, bytes | bytearray | memoryview) and not hasattr(body, "__aiter__"):
            body = json.dumps(body).encode()
            sent.setdefault("content-type", "application/json")
        try:
            async with self._session.request(
                method,
                URL(self.address.url(path) + query, encoded=True),
                data=body,
                headers=sent,
                timeout=timeout,
                allow_redirects=False,
            ) as response:
                if check and response.status >= 400:
                    raise _error(response.status, await response.read())
                yield response
        except TimeoutError as error:
            raise CannotConnect(f"{self.address} did not answer {method} {path} in time: {self._remedy}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CannotConnect(f"cannot reach {self.address} ({_cause(error)}): {self._remedy}") from error


def _cause(error: BaseException) -> str:
    inner = getattr(error, "os_error", error)
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__


def _error(status: int, raw: bytes) -> ClientError:
    """Any answer with an error status -> ClientError, in OpenAI's shape or, failing that, with what was said."""
    try:
        error = json.loads(raw)["error"]
        return ClientError(status, str(error["message"]), str(error.get("code") or ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        said = raw[:SHOWN_BODY].decode(errors="replace").strip()
        return ClientError(status, said or f"HTTP status {status}")
