"""A small bucket over a real socket. It verifies every signature with its own reading of the specification."""

import asyncio
import hashlib
import hmac
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote

import pytest
from aiohttp import web

ACCESS, SECRET, REGION = "AKIATEST", "test/secret+key", "eu-test-1"


def hmac256(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Bucket:
    """`objects` by path. `failures` next requests are answered 503; `cut` cuts the next download."""

    access, secret, region = ACCESS, SECRET, REGION

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.requests: list[str] = []
        self.failures = 0
        self.cut = False

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(f"{request.method} {request.raw_path}")
        if not self._signed(request, body):
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        if self.failures:
            self.failures -= 1
            return web.Response(status=503, text="<Error><Code>SlowDown</Code></Error>")
        path, query = unquote(request.raw_path.partition("?")[0]), request.query
        if request.method == "POST" and "uploads" in query:
            upload = f"upload/{len(self.uploads)}"
            self.uploads[upload] = {}
            return web.Response(text=f"<X><UploadId>{upload}</UploadId></X>")
        if request.method == "PUT" and "uploadId" in query:
            self.uploads[query["uploadId"]][int(query["partNumber"])] = body
            return web.Response(headers={"etag": f'"{hashlib.md5(body).hexdigest()}"'})
        if request.method == "POST":
            parts = self.uploads.pop(query["uploadId"])
            told = re.findall(rb"<PartNumber>(\d+)</PartNumber><ETag>\"(\w+)\"</ETag>", body)
            assert [(int(n), e.decode()) for n, e in told] == [
                (number, hashlib.md5(data).hexdigest()) for number, data in sorted(parts.items())
            ]
            self.objects[path] = b"".join(data for _, data in sorted(parts.items()))
            return web.Response(text="<CompleteMultipartUploadResult/>")
        if request.method == "PUT":
            self.objects[path] = body
            return web.Response()
        if request.method == "DELETE":
            (self.uploads if "uploadId" in query else self.objects).pop(query.get("uploadId", path), None)
            return web.Response(status=204)
        return await self._get(request, path)

    async def _get(self, request: web.Request, path: str) -> web.StreamResponse:
        if path not in self.objects:
            return web.Response(status=404)
        data, status = self.objects[path], 200
        if found := re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", "")):
            end = int(found[2]) + 1 if found[2] else len(data)
            data, status = data[int(found[1]) : end], 206
        response = web.StreamResponse(status=status, headers={"content-length": str(len(data))})
        await response.prepare(request)
        if self.cut:
            self.cut = False
            await response.write(data[: len(data) // 2])
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(data)
        return response

    def _signed(self, request: web.Request, body: bytes) -> bool:
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=(\S+?)/(\d{8})/(\S+?)/s3/aws4_request,"
            r"\s?SignedHeaders=(\S+?),\s?Signature=(\w+)",
            request.headers.get("authorization", ""),
        )
        if not found or found[1] != ACCESS or found[3] != REGION:
            return False
        _, date, region, names, signature = found.groups()
        payload = hashlib.sha256(body).hexdigest()
        if request.headers["x-amz-content-sha256"] != payload or not {"host", "x-amz-date"} <= set(names.split(";")):
            return False
        path, _, search = request.raw_path.partition("?")
        pairs = sorted((part.partition("=")[0], part.partition("=")[2]) for part in search.split("&") if part)
        canonical = [request.method, quote(unquote(path), safe="/~"), "&".join(f"{k}={v}" for k, v in pairs)]
        canonical += [f"{name}:{request.headers[name].strip()}" for name in names.split(";")]
        text = "\n".join([*canonical, "", names, payload])
        stamp = request.headers["x-amz-date"]
        to_sign = (
            f"AWS4-HMAC-SHA256\n{stamp}\n{date}/{region}/s3/aws4_request\n{hashlib.sha256(text.encode()).hexdigest()}"
        )
        key = hmac256(hmac256(hmac256(hmac256(b"AWS4" + SECRET.encode(), date), region), "s3"), "aws4_request")
        return hmac.compare_digest(hmac256(key, to_sign).hex(), signature)


@asynccontextmanager
async def serving_bucket() -> AsyncIterator[tuple[Bucket, str]]:
    """The bucket and its endpoint."""
    bucket = Bucket()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", bucket.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield bucket, f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def bucket() -> Iterator[tuple[Bucket, str]]:
    """One in a thread of its own, for a control process to use."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    served = serving_bucket()
    try:
        yield asyncio.run_coroutine_threadsafe(served.__aenter__(), loop).result(10)
        asyncio.run_coroutine_threadsafe(served.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def s3_server() -> Callable[[], Any]:
    """`async with s3_server() as (bucket, endpoint)`; ACCESS, SECRET and REGION are on the bucket's class."""
    return serving_bucket
