"""Objects in a bucket that speaks S3: whole or by multipart upload, read by range. One small client over aiohttp."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import aiohttp
from yarl import URL

from tokenworks.client import Address
from tokenworks.control.objects.store import CHUNK, ObjectDamaged, ObjectMissing, Stored, StoreError
from tokenworks.core.sigv4 import EMPTY_SHA256, Credentials, Signer, query_string, quoted

PART_BYTES = 8 * 1024 * 1024
"""S3 takes at most 10,000 parts of at least 5 MiB: this reaches 80 GB."""
TRIES = 4
PAUSE_SECONDS = 0.2
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
_UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")


@dataclass(frozen=True, slots=True)
class Bucket:
    """`host` and `base` (before the key) say how it is addressed: by its own name, or by a path at an endpoint."""

    origin: str
    host: str
    base: str
    region: str


def parse(url: str) -> Bucket:
    """`s3://bucket[/prefix][?endpoint=http(s)://host[:port]&region=...]`. ValueError says what is wrong with it."""
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc:
        raise ValueError(f"{url!r} is not of the form s3://bucket/prefix?endpoint=https://host&region=eu-central-1")
    given = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := set(given) - {"endpoint", "region"}:
        raise ValueError(f"{url!r}: unknown option {sorted(unknown)[0]!r}; known: endpoint, region")
    region = given.get("region", "us-east-1")
    prefix = parts.path.rstrip("/")
    if "endpoint" not in given:
        host = f"{parts.netloc}.s3.{region}.amazonaws.com"
        return Bucket(f"https://{host}", host, prefix, region)
    endpoint = Address.parse(given["endpoint"])
    host = endpoint.origin.partition("://")[2]
    return Bucket(endpoint.origin, host, f"{endpoint.prefix}/{parts.netloc}{prefix}", region)


class S3Store:
    def __init__(self, bucket: Bucket, credentials: Credentials) -> None:
        self._bucket = bucket
        self._signer = Signer(credentials, bucket.region)
        self._session: aiohttp.ClientSession | None = None

    async def put(self, key: str, chunks: AsyncIterable[bytes]) -> Stored:
        upload = _Upload(self, key)
        digest, size, buffer = hashlib.sha256(), 0, bytearray()
        try:
            async for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                buffer += chunk
                if len(buffer) >= PART_BYTES:
                    await upload.part(bytes(buffer))
                    buffer.clear()
            await upload.finish(bytes(buffer))
        except BaseException:
            await upload.abort()
            raise
        return Stored(size, digest.hexdigest())

    async def get(self, key: str, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        if length == 0:
            return
        end = "" if length is None else start + length - 1
        headers = {} if length is None and start == 0 else {"range": f"bytes={start}-{end}"}
        seen = 0
        async with self._request("GET", key, headers=headers) as response:
            expected = response.content_length if length is None else length
            try:
                async for chunk in response.content.iter_chunked(CHUNK):
                    seen += len(chunk)
                    yield chunk
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                raise StoreError(f"the bucket broke off in the middle of {key}: {error}") from error
        if expected is not None and seen != expected:
            raise ObjectDamaged(f"{key}: {seen} bytes came, {expected} were expected")

    async def delete(self, key: str) -> None:
        try:
            await self.send("DELETE", key)
        except ObjectMissing:
            return

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, key: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[bytes, str]:
        """The answer's body and its ETag."""
        async with self._request(method, key, query or {}, body) as response:
            return await response.read(), response.headers.get("etag", "")

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        key: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A good answer; what may be better in a moment is tried again."""
        for left in reversed(range(TRIES)):
            try:
                response = await self._once(method, key, query or {}, body, headers or {})
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                if not left:
                    raise StoreError(f"the bucket cannot be reached at {self._bucket.origin}: {error}") from error
            else:
                async with response:
                    if response.status < 300:
                        yield response
                        return
                    if response.status == 404:
                        raise ObjectMissing(f"{key} is not in the bucket")
                    if not left or response.status not in (429, 500, 502, 503, 504):
                        said = (await response.content.read(500)).decode(errors="replace")
                        raise StoreError(f"the bucket answered {response.status} to {method} {key}: {said}")
            await asyncio.sleep(PAUSE_SECONDS * 2 ** (TRIES - 1 - left))

    async def _once(
        self, method: str, key: str, query: Mapping[str, str], body: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), timeout=TIMEOUT)
        bucket = self._bucket
        path = f"{bucket.base}/{key}"
        payload = hashlib.sha256(body).hexdigest() if body else EMPTY_SHA256
        signed = self._signer.sign(method, path, query, {"host": bucket.host, **headers}, payload, datetime.now(UTC))
        search = f"?{query_string(query)}" if query else ""
        url = URL(f"{bucket.origin}{quoted(path)}{search}", encoded=True)
        return await self._session.request(
            method,
            url,
            data=body if body or method in ("PUT", "POST") else None,
            headers={**signed, "accept-encoding": "identity"},
            skip_auto_headers=("content-type",),
            allow_redirects=False,
        )


class _Upload:
    """One object on its way: a single PUT when it is small, else parts, which count only when all are there."""

    def __init__(self, store: S3Store, key: str) -> None:
        self._store = store
        self._key = key
        self._id = ""
        self._etags: list[str] = []

    async def part(self, data: bytes) -> None:
        if not self._id:
            body, _ = await self._store.send("POST", self._key, {"uploads": ""})
            found = _UPLOAD_ID.search(body)
            if found is None:
                raise StoreError(f"the bucket named no upload for {self._key}")
            self._id = found[1].decode()
        query = {"partNumber": str(len(self._etags) + 1), "uploadId": self._id}
        _, etag = await self._store.send("PUT", self._key, query, data)
        self._etags.append(etag)

    async def finish(self, rest: bytes) -> None:
        if not self._id:
            await self._store.send("PUT", self._key, body=rest)
            return
        if rest:
            await self.part(rest)
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in enumerate(self._etags, start=1)
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        body, _ = await self._store.send("POST", self._key, {"uploadId": self._id}, document.encode())
        if b"<Error>" in body:  # S3 may find out after it has said 200
            raise StoreError(f"the bucket did not put {self._key} together: {body[:500].decode(errors='replace')}")

    async def abort(self) -> None:
        """What cannot be aborted now is the bucket's lifecycle rule's to remove."""
        if self._id:
            try:
                await self._store.send("DELETE", self._key, {"uploadId": self._id})
            except StoreError:
                return
