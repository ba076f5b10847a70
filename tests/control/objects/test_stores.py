"""Both object stores behave alike; then what is special about each."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tokenworks.control.objects import s3
from tokenworks.control.objects.directory import DirectoryStore
from tokenworks.control.objects.s3 import S3Store, parse
from tokenworks.control.objects.store import ObjectDamaged, ObjectMissing, ObjectStore, StoreError
from tokenworks.core.sigv4 import Credentials

Work = Callable[[ObjectStore], Coroutine[Any, Any, Any]]
KEY = "files/a file-ü"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def broken(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    raise RuntimeError("the client left")


async def whole(store: ObjectStore, key: str = KEY, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.get(key, start, length)])


def on_bucket(s3_server: Any, work: Callable[[S3Store, Any], Coroutine[Any, Any, Any]]) -> None:
    async def run() -> None:
        async with s3_server() as (bucket, endpoint):
            where = parse(f"s3://bucket/some/prefix?endpoint={endpoint}&region={bucket.region}")
            store = S3Store(where, Credentials(bucket.access, bucket.secret))
            try:
                await work(store, bucket)
            finally:
                await store.close()

    asyncio.run(run())


@pytest.fixture(params=["directory", "bucket"])
def with_store(request: Any, tmp_path: Path, s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[Work], None]:
    monkeypatch.setattr(s3, "PART_BYTES", 64 * 1024)
    if request.param == "directory":
        return lambda work: asyncio.run(work(DirectoryStore(tmp_path / "objects")))
    return lambda work: on_bucket(s3_server, lambda store, _: work(store))


@pytest.mark.parametrize("sizes", [[], [0], [1], [65536], [100, 65536, 7], [200_000, 1, 300_001]])
def test_what_was_put_is_got_whole_or_in_part(with_store: Callable[[Work], None], sizes: list[int]) -> None:
    parts = [os.urandom(size) for size in sizes]
    data = b"".join(parts)

    async def work(store: ObjectStore) -> None:
        stored = await store.put(KEY, pieces(*parts))
        assert (stored.size, stored.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert await whole(store) == data
        if data:
            assert await whole(store, start=len(data) // 2, length=1) == data[len(data) // 2 :][:1]
            assert await whole(store, start=1) == data[1:]
        assert await whole(store, length=0) == b""

    with_store(work)


def test_put_again_replaces_and_delete_is_idempotent(with_store: Callable[[Work], None]) -> None:
    async def work(store: ObjectStore) -> None:
        await store.put(KEY, pieces(b"old"))
        await store.put(KEY, pieces(b"new"))
        assert await whole(store) == b"new"
        await store.delete(KEY)
        await store.delete(KEY)
        with pytest.raises(ObjectMissing):
            await whole(store)

    with_store(work)


def test_an_upload_that_breaks_leaves_nothing(with_store: Callable[[Work], None]) -> None:
    async def work(store: ObjectStore) -> None:
        with pytest.raises(RuntimeError, match="the client left"):
            await store.put(KEY, broken(b"x" * 200_000, b"y"))
        with pytest.raises(ObjectMissing):
            await whole(store)

    with_store(work)


def test_an_object_that_ends_too_early_is_damaged(with_store: Callable[[Work], None]) -> None:
    async def work(store: ObjectStore) -> None:
        await store.put(KEY, pieces(b"0123456789"))
        with pytest.raises(ObjectDamaged):
            await whole(store, start=5, length=10)

    with_store(work)


def test_half_written_files_are_removed_at_start(tmp_path: Path) -> None:
    async def work() -> None:
        store = DirectoryStore(tmp_path)
        await store.put(KEY, pieces(b"whole"))
        (tmp_path / "files" / "x.1234.part").write_bytes(b"half")
        again = DirectoryStore(tmp_path)
        assert [path.name for path in (tmp_path / "files").iterdir()] == ["a file-ü"]
        assert await whole(again) == b"whole"

    asyncio.run(work())


@pytest.mark.parametrize("key", ["../secret", "files/../../secret", "/etc/passwd"])
def test_a_key_never_leads_out_of_the_directory(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        asyncio.run(whole(DirectoryStore(tmp_path / "objects"), key))


def test_a_directory_that_cannot_be_written_is_a_store_error(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    (tmp_path / "files").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        asyncio.run(store.put("files/a", pieces(b"x")))


def test_large_objects_go_in_parts_and_parts_of_a_broken_one_are_removed(
    s3_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 1000)

    async def work(store: S3Store, bucket: Any) -> None:
        await store.put(KEY, pieces(b"a" * 2500, b"b"))
        assert len([line for line in bucket.requests if "partNumber" in line]) == 2
        await store.put(KEY, pieces(*[b"a" * 600] * 5))
        assert bucket.objects["/bucket/some/prefix/files/a file-ü"] == b"a" * 3000
        with pytest.raises(RuntimeError):
            await store.put("files/b", broken(b"a" * 3000))
        assert not bucket.uploads

    on_bucket(s3_server, work)


def test_a_bucket_that_is_busy_is_asked_again(s3_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAUSE_SECONDS", 0.01)

    async def work(store: S3Store, bucket: Any) -> None:
        bucket.failures = 2
        await store.put(KEY, pieces(b"data"))
        assert await whole(store) == b"data"
        bucket.failures = s3.TRIES
        with pytest.raises(StoreError, match="503"):
            await whole(store)

    on_bucket(s3_server, work)


def test_a_download_that_is_cut_is_an_error(s3_server: Any) -> None:
    async def work(store: S3Store, bucket: Any) -> None:
        await store.put(KEY, pieces(b"x" * 100_000))
        bucket.cut = True
        with pytest.raises(StoreError):
            await whole(store)

    on_bucket(s3_server, work)


def test_wrong_credentials_are_told(s3_server: Any) -> None:
    async def work(store: S3Store, bucket: Any) -> None:
        other = S3Store(store._bucket, Credentials(bucket.access, "wrong"))
        try:
            with pytest.raises(StoreError, match="403"):
                await other.put(KEY, pieces(b"x"))
        finally:
            await other.close()

    on_bucket(s3_server, work)


def test_a_bucket_that_is_not_there_is_a_store_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PAUSE_SECONDS", 0.01)

    async def work() -> None:
        store = S3Store(parse("s3://b?endpoint=http://127.0.0.1:9"), Credentials("a", "b"))
        try:
            with pytest.raises(StoreError, match="cannot be reached"):
                await whole(store)
        finally:
            await store.close()

    asyncio.run(work())


def test_where_a_url_leads() -> None:
    assert parse("s3://b/p/").base == "/p"
    assert parse("s3://b?region=eu-central-1").origin == "https://b.s3.eu-central-1.amazonaws.com"
    own = parse("s3://b/p?endpoint=http://10.0.0.1:9000")
    assert (own.origin, own.host, own.base) == ("http://10.0.0.1:9000", "10.0.0.1:9000", "/b/p")


@pytest.mark.parametrize("url", ["", "b", "https://b", "s3://", "s3://b?endpoint=nowhere", "s3://b?key=x"])
def test_urls_that_lead_nowhere(url: str) -> None:
    with pytest.raises(ValueError, match=r"s3|address|option"):
        parse(url)
