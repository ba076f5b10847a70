"""What a gateway keeps in memory: bounded in bytes, oldest wish first, for its time."""

import asyncio
import time
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.gateway.caching.stores import ENTRY_BYTES, Kept, MemoryStore, cache_store

MOST = 4 * (ENTRY_BYTES + 100)


def kept(size: int) -> Kept:
    return Kept(time.time(), [b"x" * size], "u", "m", 0, "stop", "", [])


@given(st.lists(st.tuples(st.sampled_from("pg"), st.integers(0, 7), st.sampled_from([0, 100, 700, MOST])), max_size=40))
def test_it_stays_below_its_bound_and_lets_the_longest_unasked_go(steps: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        store, model = MemoryStore(MOST), OrderedDict[str, int]()
        for kind, number, size in steps:
            name = str(number)
            if kind == "g":
                found = await store.get(name)
                assert (found is not None) == (name in model)
                if name in model:
                    model.move_to_end(name)
                continue
            await store.put(name, kept(size), 60)
            model.pop(name, None)
            if size + ENTRY_BYTES <= MOST:
                model[name] = size + ENTRY_BYTES
            while sum(model.values()) > MOST:
                model.popitem(last=False)
            assert store.size == sum(model.values()) <= MOST

    asyncio.run(run())


def test_nothing_outlives_its_time() -> None:
    async def run() -> None:
        store = MemoryStore(MOST)
        await store.put("a", kept(1), 0)
        assert await store.get("a") is None
        assert store.size == 0

    asyncio.run(run())


def test_a_place_that_is_none_is_told() -> None:
    with pytest.raises(ValueError, match=r"--cache 'disk'.*redis://"):
        cache_store("disk", 1.0, 1)
