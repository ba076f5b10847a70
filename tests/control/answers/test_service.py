"""Answers in a real database: saves, the first ending, leases, chains, forgetting; another project sees nothing."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from tokenworks.answers.records import LEASE_SECONDS, PREDICTION, RESPONSE, Events, Save, WebhookRecord, pack
from tokenworks.control.answers.service import Answers
from tokenworks.control.storage import answers, deliveries, tenants
from tokenworks.control.storage.database import Database
from tokenworks.core.clock import ManualClock
from tokenworks.core.errors import NotFound

pytestmark = pytest.mark.both_databases


def saving(project: str, status: str = "in_progress", kind: str = RESPONSE, **members: Any) -> Save:
    body = json.dumps({"id": "x", "status": status, "arguments": '{"a" : 1e2}'}).encode()
    return Save(kind, project, "m", status, 1, body, **members)


class Place:
    """A database with two projects, and the service over it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = ManualClock()
        self.woken = 0
        self.service = Answers(database, self.clock, self._wake)
        self.ours = self.theirs = ""

    def _wake(self) -> None:
        self.woken += 1

    async def settle(self) -> "Place":
        async with self.database.write() as connection:
            self.ours = (await tenants.create_organization(connection, "a", 1)).id
            self.theirs = (await tenants.create_organization(connection, "b", 1)).id
        return self

    async def find(self, id: str, kind: str = RESPONSE, project: str | None = None) -> Any:
        async with self.database.read() as connection:
            now = self.clock.now_ns() // 10**9
            return await answers.find(connection, project or self.ours, kind, id, now)

    async def chain(self, id: str) -> list[str]:
        async with self.database.read() as connection:
            now = self.clock.now_ns() // 10**9
            return [record.id for record in await answers.chain(connection, self.ours, RESPONSE, id, now)]

    async def waiting(self) -> list[Any]:
        async with self.database.read() as connection:
            return await deliveries.due(connection, self.clock.now_ns(), 100)


@pytest.fixture
def place(with_database: Any) -> Callable[[Callable[[Place], Coroutine[Any, Any, Any]]], Any]:
    def run(work: Callable[[Place], Coroutine[Any, Any, Any]]) -> Any:
        async def whole(database: Database) -> Any:
            return await work(await Place(database).settle())

        return with_database(whole)

    return run


def test_the_first_ending_stands(place: Any) -> None:
    async def work(at: Place) -> None:
        await at.service.save("a", saving(at.ours, create=True))
        assert (await at.service.save("a", saving(at.ours, "completed", ended=True))).ended
        saved = await at.service.save("a", saving(at.ours, "failed", ended=True))
        assert (saved.status, saved.ended) == ("completed", True)
        cancelled = await at.service.cancel(at.ours, RESPONSE, "a")
        assert cancelled is not None and cancelled.status == "completed"
        assert (await at.find("a")).status == "completed"

    place(work)


def test_a_cancelled_answer_keeps_what_it_had(place: Any) -> None:
    async def work(at: Place) -> None:
        await at.service.save("a", saving(at.ours, create=True))
        record = await at.service.cancel(at.ours, RESPONSE, "a")
        assert record is not None and record.ended
        assert record.body == b'{"id":"x","status":"cancelled","arguments":"{\\"a\\" : 1e2}"}'
        saved = await at.service.save("a", saving(at.ours))
        assert (saved.status, saved.ended) == ("cancelled", True)

    place(work)


def test_a_deleted_answer_is_not_made_again(place: Any) -> None:
    async def work(at: Place) -> None:
        await at.service.save("a", saving(at.ours, create=True, events=pack(0, [b"e"])))
        async with at.database.write() as connection:
            assert not await answers.remove(connection, at.theirs, RESPONSE, "a")
            assert await answers.remove(connection, at.ours, RESPONSE, "a")
        assert (await at.service.save("a", saving(at.ours))).ended
        assert await at.find("a") is None

    place(work)


def test_a_save_that_is_sent_again_changes_nothing(place: Any) -> None:
    async def events(at: Place) -> list[bytes]:
        async with at.database.read() as connection:
            found = await answers.events_from(connection, "a", 0)
        assert [pack.first for pack in found] == sorted(pack.first for pack in found)
        return [block for each in found for block in each.blocks()]

    async def work(at: Place) -> None:
        first = saving(at.ours, create=True, events=pack(0, [b"0", b"1"]))
        for _ in range(2):
            await at.service.save("a", first)
        # The reply to [2, 3] got lost, so they come again with what followed.
        await at.service.save("a", saving(at.ours, events=pack(2, [b"2", b"3"])))
        await at.service.save("a", saving(at.ours, events=pack(2, [b"2", b"3", b"4"])))
        await at.service.save("a", saving(at.ours, events=pack(1, [b"1"])))
        assert await events(at) == [b"0", b"1", b"2", b"3", b"4"]
        assert (await at.find("a")).event_count == 5

    place(work)


def test_another_project_sees_and_changes_nothing(place: Any) -> None:
    async def work(at: Place) -> None:
        await at.service.save("a", saving(at.ours, create=True))
        assert await at.find("a", project=at.theirs) is None
        assert await at.find("a", kind=PREDICTION) is None
        assert await at.service.cancel(at.theirs, RESPONSE, "a") is None
        with pytest.raises(NotFound):
            await at.service.save("a", saving(at.theirs, "failed", create=True))
        with pytest.raises(NotFound):
            await at.service.save("b", saving("proj_unknown", create=True))
        assert (await at.find("a")).status == "in_progress"

    place(work)


@pytest.mark.parametrize(("kind", "member"), [(RESPONSE, dict), (PREDICTION, str)])
def test_what_nobody_renews_has_failed(place: Any, kind: str, member: type) -> None:
    async def work(at: Place) -> None:
        hook = WebhookRecord("http://hooks.example/", ("completed",))
        await at.service.save("a", saving(at.ours, kind=kind, create=True, webhook=hook))
        at.clock.advance(LEASE_SECONDS - 1)
        await at.service.save("a", saving(at.ours, kind=kind))
        at.clock.advance(LEASE_SECONDS - 1)
        await at.service.expire()
        assert not (await at.find("a", kind)).ended
        at.clock.advance(2)
        await at.service.expire()
        record = await at.find("a", kind)
        assert (record.status, record.ended) == ("failed", True)
        assert isinstance(json.loads(record.body)["error"], member)
        assert [each.event for each in await at.waiting()] == ["completed"]
        assert at.woken

    place(work)


def test_a_lease_begins_anew_after_control_was_away(place: Any) -> None:
    async def work(at: Place) -> None:
        await at.service.save("a", saving(at.ours, create=True))
        at.clock.advance(1000)
        async with at.service.running():
            await at.service.expire()
            assert not (await at.find("a")).ended
            at.clock.advance(LEASE_SECONDS + 1)
            async with asyncio.timeout(30):
                while not (await at.find("a")).ended:  # noqa: ASYNC110 -- it ends in the database
                    await asyncio.sleep(0.05)

    place(work)


def test_chains_end_where_one_is_gone_or_another_projects(place: Any) -> None:
    async def work(at: Place) -> None:
        await at.service.save("theirs", saving(at.theirs, "completed", create=True, ended=True))
        previous = None
        for name in "abc":
            save = saving(at.ours, "completed", create=True, ended=True, previous_id=previous)
            await at.service.save(name, save)
            previous = name
        await at.service.save("d", saving(at.ours, "completed", create=True, ended=True, previous_id="theirs"))
        assert await at.chain("c") == ["a", "b", "c"]
        assert await at.chain("d") == ["d"]
        assert await at.chain("theirs") == []
        async with at.database.write() as connection:
            await answers.remove(connection, at.ours, RESPONSE, "a")
        assert await at.chain("c") == ["b", "c"]

    place(work)


def test_what_was_kept_long_enough_is_forgotten(place: Any) -> None:
    async def work(at: Place) -> None:
        for name in ("old", "new"):
            await at.service.save(name, saving(at.ours, "completed", create=True, ended=True, events=pack(0, [b"e"])))
            at.clock.advance(answers.RETENTION_SECONDS - 10)
        assert await at.find("old") is None and await at.find("new") is not None
        await at.service.forget()
        async with at.database.read() as connection:
            assert await answers.events_from(connection, "old", 0) == []
            assert len(await answers.events_from(connection, "new", 0)) == 1

    place(work)


def test_webhooks_wait_in_their_order(place: Any) -> None:
    async def work(at: Place) -> None:
        hook = WebhookRecord("http://hooks.example/", ("start", "output", "completed"))
        await at.service.save("a", saving(at.ours, "starting", PREDICTION, create=True, webhook=hook))
        await at.service.save("a", saving(at.ours, "processing", PREDICTION, progress=("output", "logs")))
        await at.service.save("a", saving(at.ours, "succeeded", PREDICTION, ended=True))
        await at.service.save("a", saving(at.ours, "succeeded", PREDICTION, ended=True))
        told = []
        while waiting := await at.waiting():
            (first,) = waiting
            told.append((first.event, json.loads(first.body)["status"]))
            async with at.database.write() as connection:
                await deliveries.remove(connection, first.id)
        assert told == [("start", "starting"), ("output", "processing"), ("completed", "succeeded")]

    place(work)


def test_events_are_packed_small_and_whole() -> None:
    blocks = [b'event: response.output_text.delta\ndata: {"delta":"word %d"}' % number for number in range(1000)]
    packed = pack(7, blocks)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(packed), type=Events).blocks() == blocks
    assert len(packed.packed) < sum(map(len, blocks)) / 5
