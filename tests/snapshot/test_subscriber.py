import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from tokenworks.client import Client
from tokenworks.core.errors import Unavailable
from tokenworks.snapshot import answers
from tokenworks.snapshot.framing import encode
from tokenworks.snapshot.publisher import Publisher
from tokenworks.snapshot.records import Beat, CredentialRecord, KeyRecord, ModelRecord, TargetRecord, UpstreamRecord
from tokenworks.snapshot.state import State
from tokenworks.snapshot.subscriber import Subscriber

TOKEN = "internal-token"


def make_key(number: int, models: tuple[str, ...] | None = None) -> KeyRecord:
    return KeyRecord(f"key_{number}", f"{number:064x}", "proj_1", "org_1", models=models)


def make_state(*numbers: int, revision: int = 0) -> State:
    target = TargetRecord("up/0", "m")
    return State.of(
        revision=revision,
        keys=[make_key(number) for number in numbers],
        models=[ModelRecord("m", 1, (target,))],
        upstreams=[
            UpstreamRecord(
                "up/0",
                "up",
                ("openai_chat",),
                "http://127.0.0.1:9/v1",
                credentials=(CredentialRecord("k", b"\x01sealed"),),
            )
        ],
    )


@dataclass
class SmallControl:
    """A real server on a Unix socket; `answers` are its keys, `asked` what it was asked, `raw` replaces the stream."""

    socket: Path
    publisher: Publisher
    answers: dict[str, KeyRecord] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    streams: int = 0
    raw: bytes | None = None
    before_answer: Callable[[], None] = lambda: None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": {"message": "wrong token", "code": "invalid_token"}}, status=401)
        self.streams += 1
        response = web.StreamResponse()
        await response.prepare(request)
        if self.raw is not None:
            await response.write(self.raw)
            return response
        async for frame in self.publisher.subscribe():
            await response.write(frame)
        return response

    async def _key(self, request: web.Request) -> web.Response:
        digest = request.match_info["digest"]
        self.asked.append(digest)
        found = self.answers.get(digest)
        self.before_answer()
        return web.Response(body=msgspec.msgpack.encode(found)) if found else web.Response(status=404)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/internal/v1/snapshot", self._stream)
        app.router.add_get("/internal/v1/keys/{digest}", self._key)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(self.socket)).start()
        try:
            yield
        finally:
            self.publisher.close()
            await runner.cleanup()

    def client(self) -> Client:
        return Client(f"unix:{self.socket}", token=TOKEN)


@pytest.fixture
def small_control(tmp_path: Path) -> SmallControl:
    return SmallControl(tmp_path / "control.sock", Publisher(make_state(1), beat=0.1))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - waits for another task or the server, whatever it does
            await asyncio.sleep(0.01)


def run_with(
    small_control: SmallControl,
    use: Callable[[Subscriber], Awaitable[None]],
    path: Path | None = None,
    *,
    up: bool = True,
) -> None:
    """`use` a started subscriber, with control running (`up`) or away."""

    async def run() -> None:
        async with small_control.client() as client:
            subscriber = Subscriber(client, path)
            subscriber.start()
            try:
                if up:
                    async with small_control.running():
                        await use(subscriber)
                else:
                    await use(subscriber)
            finally:
                await subscriber.stop()

    asyncio.run(run())


def test_it_follows_every_change(small_control: SmallControl) -> None:
    seen: list[int] = []

    async def run() -> None:
        async with small_control.running(), small_control.client() as client:
            subscriber = Subscriber(client, on_change=lambda state: seen.append(len(state.keys)))
            assert subscriber.age == float("inf")
            subscriber.start()
            await subscriber.wait_first(10)
            assert subscriber.connected
            assert subscriber.state == small_control.publisher.state
            for numbers in [(1, 2), (1, 2, 3), (3,)]:
                small_control.publisher.publish(make_state(*numbers))
            await until(lambda: subscriber.state == small_control.publisher.state)
            assert seen == [1, 2, 3, 1]
            assert 0 <= subscriber.age < 10
            await subscriber.stop()
            assert not subscriber.connected

    asyncio.run(run())


def test_control_goes_and_comes_back(small_control: SmallControl) -> None:
    async def run() -> None:
        async with small_control.client() as client:
            subscriber = Subscriber(client)
            subscriber.start()
            async with small_control.running():
                await subscriber.wait_first(10)
            await until(lambda: not subscriber.connected)
            before = subscriber.state
            assert before.keys, "the state stays while control is away"
            # A control that starts again numbers from anew: lower revisions than we know are fine in a new stream.
            small_control.publisher = Publisher(make_state(7, 8), beat=0.1)
            async with small_control.running():
                await until(lambda: subscriber.connected)
                await until(lambda: subscriber.state.keys == make_state(7, 8).keys)
            await subscriber.stop()

    asyncio.run(run())


def test_the_copy_on_disk_serves_while_control_is_away(small_control: SmallControl, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"

    async def fill(subscriber: Subscriber) -> None:
        await subscriber.wait_first(10)
        await until(path.exists)
        small_control.publisher.publish(make_state(1, 2))
        await until(lambda: len(subscriber.state.keys) == 2)

    async def serve(subscriber: Subscriber) -> None:
        await subscriber.wait_first(10)
        assert subscriber.state == small_control.publisher.state, "the last change was saved by stop"
        assert not subscriber.connected
        assert await subscriber.lookup_key(make_key(2).digest) == make_key(2)
        with pytest.raises(Unavailable, match="cannot be checked"):
            await subscriber.lookup_key(make_key(3).digest)

    run_with(small_control, fill, path)
    run_with(small_control, serve, path, up=False)


def test_without_control_and_copy_waiting_ends_with_the_reason(small_control: SmallControl, tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(b"damaged")

    async def wait(subscriber: Subscriber) -> None:
        with pytest.raises(Unavailable, match=r"no snapshot: control at unix:.*control\.sock cannot be reached"):
            await subscriber.wait_first(0.3)

    run_with(small_control, wait, path, up=False)


def test_a_copy_that_cannot_be_written_stops_nothing(
    small_control: SmallControl, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def follow(subscriber: Subscriber) -> None:
        await subscriber.wait_first(10)
        await until(lambda: "cannot be written" in caplog.text)
        small_control.publisher.publish(make_state(5))
        await until(lambda: subscriber.state == small_control.publisher.state)

    run_with(small_control, follow, tmp_path / "missing" / "snapshot")


@pytest.mark.parametrize("raw", [b"", b"garbage garbage", encode(Beat(0)), encode(make_state(3).full())[:-1]])
def test_a_broken_stream_is_left_and_tried_again(small_control: SmallControl, raw: bytes) -> None:
    small_control.raw = raw

    async def follow(subscriber: Subscriber) -> None:
        await until(lambda: small_control.streams >= 2)
        assert not subscriber.connected
        assert subscriber.state == State()
        small_control.raw = None
        await until(lambda: subscriber.state == small_control.publisher.state)

    run_with(small_control, follow)


def test_another_cluster_key_is_reported(small_control: SmallControl, caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with small_control.running(), Client(f"unix:{small_control.socket}", token="other") as client:
            subscriber = Subscriber(client)
            subscriber.start()
            await until(lambda: "wrong token" in caplog.text)
            await subscriber.stop()

    asyncio.run(run())
    assert "other" not in caplog.text.replace("another", "")


def test_an_unknown_key_is_asked_for_once(small_control: SmallControl) -> None:
    good, bad = make_key(10).digest, make_key(11).digest
    small_control.answers[good] = make_key(10)

    async def ask(subscriber: Subscriber) -> None:
        await subscriber.wait_first(10)
        assert await subscriber.lookup_key(make_key(1).digest) == make_key(1)
        assert small_control.asked == [], "a key of the state needs no question"
        found = await asyncio.gather(*[subscriber.lookup_key(digest) for digest in (good, bad) for _ in range(20)])
        assert found == [make_key(10)] * 20 + [None] * 20
        assert await subscriber.lookup_key(bad) is None
        assert sorted(small_control.asked) == [good, bad]

    run_with(small_control, ask)


def test_a_key_made_now_is_good_at_once(small_control: SmallControl) -> None:
    async def ask(subscriber: Subscriber) -> None:
        await subscriber.wait_first(10)
        assert await subscriber.lookup_key(make_key(2).digest) is None
        small_control.publisher.publish(make_state(1, 2))
        await until(lambda: len(subscriber.state.keys) == 2)
        assert await subscriber.lookup_key(make_key(2).digest) == make_key(2), "the remembered no does not hide it"

    run_with(small_control, ask)


def test_a_revoked_key_is_refused_also_from_memory(
    small_control: SmallControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "YES_SECONDS", 3600.0)
    key = make_key(2)
    small_control.answers[key.digest] = key

    async def ask(subscriber: Subscriber) -> None:
        await subscriber.wait_first(10)
        assert await subscriber.lookup_key(key.digest) == key
        small_control.publisher.publish(make_state(1, 2))
        del small_control.answers[key.digest]
        small_control.publisher.publish(make_state(1))
        await until(lambda: subscriber.state == small_control.publisher.state)
        assert await subscriber.lookup_key(key.digest) is None

    run_with(small_control, ask)


def test_an_answer_overtaken_by_a_revocation_does_not_count() -> None:
    key = make_key(2)

    async def run() -> None:
        revoked = asyncio.Event()

        async def slow(_: str) -> KeyRecord | None:
            await revoked.wait()
            return key

        remembered = answers.Answers(slow)
        question = asyncio.create_task(remembered.get(key.digest))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        remembered.forget([key.digest])
        revoked.set()
        assert await question is None

    asyncio.run(run())


def test_the_last_yes_stands_while_control_is_away(
    small_control: SmallControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "YES_SECONDS", 0.0)
    monkeypatch.setattr(answers, "NO_SECONDS", 0.0)
    good, bad = make_key(10), make_key(11)
    small_control.answers[good.digest] = good

    async def run() -> None:
        async with small_control.client() as client:
            subscriber = Subscriber(client)
            async with small_control.running():
                assert await subscriber.lookup_key(good.digest) == good
                assert await subscriber.lookup_key(bad.digest) is None
            assert await subscriber.lookup_key(good.digest) == good
            with pytest.raises(Unavailable) as caught:
                await subscriber.lookup_key(bad.digest)
            assert caught.value.status == 503
            assert bad.digest not in caught.value.message

    asyncio.run(run())


def test_memory_is_bounded_and_keeps_the_latest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "REMEMBERED", 3)
    asked: list[str] = []

    async def ask(digest: str) -> KeyRecord | None:
        asked.append(digest)
        return None

    async def run() -> None:
        remembered = answers.Answers(ask)
        for digest in "abcde":
            await remembered.get(digest)
        for digest in "cde":
            await remembered.get(digest)
        assert asked == list("abcde")
        await remembered.get("a")
        assert asked == list("abcdea")

    asyncio.run(run())


def test_an_unreadable_answer_is_no_answer(small_control: SmallControl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msgspec.msgpack, "encode", lambda _: b"\xc1")
    small_control.answers[make_key(5).digest] = make_key(5)

    async def ask(subscriber: Subscriber) -> None:
        with pytest.raises(Unavailable):
            await subscriber.lookup_key(make_key(5).digest)

    run_with(small_control, ask)
