import asyncio
from dataclasses import replace

from tokenworks.snapshot.framing import Reader
from tokenworks.snapshot.publisher import Publisher
from tokenworks.snapshot.records import Beat, Delta, Frame, Full, KeyRecord
from tokenworks.snapshot.state import State


def numbered(*numbers: int) -> State:
    return State.of(keys=[KeyRecord(f"k{number}", f"d{number}", "p", "o") for number in numbers])


async def _next(stream, reader: Reader) -> Frame:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(10):
        (frame,) = reader.feed(await anext(stream))
    return frame


def test_full_then_deltas_then_beats() -> None:
    async def run() -> None:
        publisher = Publisher(beat=0.05)
        assert publisher.publish(numbered(1)) == 1
        stream, reader = publisher.subscribe(), Reader()
        assert await _next(stream, reader) == publisher.state.full()
        assert await _next(stream, reader) == Beat(1)
        assert publisher.publish(numbered(1, 2)) == 2
        assert publisher.publish(numbered(1, 2)) == 2, "the same state again is no change"
        assert publisher.publish(replace(numbered(2), revision=40)) == 40
        assert await _next(stream, reader) == Delta(2, keys=numbered(2).full().keys)
        assert await _next(stream, reader) == Delta(40, removed_keys=("d1",))
        assert await _next(stream, reader) == Beat(40)
        await stream.aclose()
        assert publisher.subscribers == 0

    asyncio.run(run())


def test_a_slow_subscriber_gets_the_full_state_in_place_of_a_queue() -> None:
    async def run() -> None:
        publisher = Publisher(beat=0.05, queue=4)
        stream, reader = publisher.subscribe(), Reader()
        assert isinstance(await _next(stream, reader), Full)
        for number in range(1, 6):
            publisher.publish(numbered(number))
        assert await _next(stream, reader) == publisher.state.full()
        publisher.publish(numbered(9))
        state = publisher.state
        followed = State().apply(replace(state, revision=state.revision - 1, keys=numbered(5).keys).full())
        assert followed.apply(await _next(stream, reader)) == state
        await stream.aclose()

    asyncio.run(run())


def test_close_ends_every_subscription() -> None:
    async def run() -> None:
        publisher = Publisher()
        streams = [publisher.subscribe() for _ in range(3)]
        for stream in streams:
            await anext(stream)
        waiting = [asyncio.create_task(anext(stream, None)) for stream in streams]
        await asyncio.sleep(0)
        publisher.close()
        async with asyncio.timeout(10):
            assert await asyncio.gather(*waiting) == [None] * 3
            assert [frame async for frame in publisher.subscribe()] == []
        assert publisher.subscribers == 0

    asyncio.run(run())
