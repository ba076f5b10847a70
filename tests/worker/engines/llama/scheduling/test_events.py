"""What the scheduler and its cache tell of what they hold is what they hold: to whoever listens always, seldom, or
from a certain moment on."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from tokenworks.protocols.worker import blocks as naming
from tokenworks.protocols.worker.kv import AllBlocksCleared, BlockRemoved, BlockStored, KVEvent, PromptNamed
from tokenworks.worker.engines.kv_events import KVEvents
from tokenworks.worker.engines.llama.scheduling.names import Names
from tokenworks.worker.engines.llama.scheduling.sequence import Named

STEPS = 6_000
PUBLIC = [9] * 20
Told = dict[str, set[int]]


class Listener:
    """Believes what it is told. Each event has to follow the one before."""

    def __init__(self) -> None:
        self.held: Told = {}
        self.number = -1
        self.cleared = 0

    def take(self, events: list[KVEvent]) -> None:
        for event in events:
            match event:
                case AllBlocksCleared(number=number):
                    self.held, self.number = {"slot": set(), "ram": set(), "disk": set()}, number
                    self.cleared += 1
                case BlockStored(medium=medium, blocks=blocks):
                    assert not self.held[medium] & set(blocks)
                    self.held[medium] |= set(blocks)
                case BlockRemoved(medium=medium, blocks=blocks):
                    assert self.held[medium] >= set(blocks)
                    self.held[medium] -= set(blocks)
                case PromptNamed():
                    pass
            assert event.number in (self.number, self.number + 1)
            self.number = event.number


def truth(sim: Any) -> Told:
    """By a walk through the tree and the slots, with names that are made from the beginning."""
    found: Told = {"slot": set(), "ram": set(), "disk": set()}
    names = Names()
    for key, root in sim.prefixes._roots.items():
        if not key[0]:
            continue
        public = PUBLIC[: int(key[0].partition(":")[0])]
        left = [(child, public) for child in root.children.values()]
        while left:
            node, before = left.pop()
            tokens = [*before, *node.tokens]
            whole = names.prompt(node.key, tokens)
            first = 0 if node.parent is root else len(before) // naming.BLOCK
            found["ram" if node.stored is not None else "disk"] |= set(whole[first:])
            left += [(child, tokens) for child in node.children.values()]
    for sequence in sim.scheduler.running:
        if sequence.told:
            found["slot"] |= set(sequence.named.blocks)
    return found


def prompt(rng: random.Random) -> list[int]:
    head = PUBLIC if rng.random() < 0.7 else []
    shared = [100 + rng.randrange(3)] * rng.choice((0, 15, 31, 60))
    return [*head, *shared, *(rng.randrange(10, 14) for _ in range(rng.randint(1, 60)))]


@pytest.mark.parametrize(("shelf", "most"), [(0, 10_000), (1500, 10_000), (1500, 300)])
def test_what_is_told_is_what_is_held(simulation: Any, shelf: int, most: int) -> None:
    """`most` 300: so little is remembered that who listens seldom has missed some and is told everything again."""
    rng, events, names = random.Random(shelf + most), KVEvents(most), Names()
    sim = simulation(
        slots=3, capacity=256, budget=24, memory=500, public=PUBLIC, queue=24, shelf=shelf, listener=events
    )
    always, seldom = Listener(), Listener()

    async def all_of_it() -> None:
        async with aclosing(events.follow()) as one, aclosing(events.follow()) as other:
            for step in range(STEPS):
                if step % 20 == 0 and sim.scheduler.waiting < 6:
                    tenant, tokens = f"t{rng.randrange(3)}", prompt(rng)
                    key = (tenant, rng.choice(("", "lora@1.2")))
                    named = Named((1, 2), names.prompt(key, tokens)) if rng.random() < 0.7 else None
                    sequence = sim.submit(tokens, rng.randint(1, 90), tenant=tenant, key=key, named=named)
                    if rng.random() < 0.1:
                        sim.scheduler.cancel(sequence)
                        sim.outputs.pop(sequence, None)
                if sim.scheduler.has_work():
                    sim.step()
                if events.number != always.number:
                    always.take(await anext(one))
                if step % 500 == 499 and events.number != seldom.number:
                    seldom.take(await anext(other))
                    assert seldom.held == always.held
                if step % 50 == 0:
                    assert always.held == truth(sim)

    asyncio.run(all_of_it())
    assert always.cleared == 1
    assert (seldom.cleared == 1) == (most > 1000)
    assert sim.scheduler.counts.preemptions
    assert always.number > STEPS / 20
    assert bool(always.held["disk"]) == bool(shelf)


async def first(events: AsyncIterator[list[KVEvent]]) -> list[KVEvent]:
    return await anext(events)


def test_who_comes_back_hears_what_it_missed_and_nothing_twice() -> None:
    async def hear(events: KVEvents, epoch: str, after: int) -> list[KVEvent]:
        async with aclosing(events.follow(epoch, after)) as told:
            return await anext(told)

    events = KVEvents(most=10)
    events.stored("ram", [1, 2])
    events.removed("ram", [2])
    one, two = asyncio.run(hear(events, events.epoch, 0))
    assert (one, two) == (BlockStored(1, "ram", [1, 2]), BlockRemoved(2, "ram", [2]))
    assert asyncio.run(hear(events, events.epoch, 1)) == [two]
    cleared = AllBlocksCleared(2, events.epoch, naming.BLOCK)
    for epoch, after in (("", -1), ("another", 2), (events.epoch, 3)):
        assert asyncio.run(hear(events, epoch, after)) == [cleared, BlockStored(2, "ram", [1])]
    events.stored("disk", list(range(10, 20)))  # more than is remembered
    assert asyncio.run(hear(events, events.epoch, 1))[0] == AllBlocksCleared(3, events.epoch, naming.BLOCK)


def test_who_waits_is_woken_from_another_thread_and_at_the_end() -> None:
    events = KVEvents()

    async def listen() -> int:
        heard = 0
        async with aclosing(events.follow()) as told:
            await anext(told)
            waiting = asyncio.ensure_future(first(told))
            await asyncio.sleep(0)
            await asyncio.to_thread(events.stored, "slot", [7])
            heard += len(await waiting)
            ending = asyncio.ensure_future(anext(told, []))
            await asyncio.sleep(0)
            events.close()
            assert await ending == []
        return heard

    assert asyncio.run(listen()) == 1


def test_names_are_of_the_tenant_the_adapter_and_all_that_comes_before() -> None:
    tokens = list(range(40))
    one = Names("secret").prompt(("tenant", "poet@17.2"), tokens)
    assert len(one) == 2
    assert one == Names("secret").prompt(("tenant", "poet@99.2"), tokens[:39])  # the same file on another machine
    for other in (
        Names("other").prompt(("tenant", "poet@17.2"), tokens),
        Names("secret").prompt(("another", "poet@17.2"), tokens),
        Names("secret").prompt(("tenant", ""), tokens),
        Names("secret").prompt(("tenant", "poet@17.2"), [5, *tokens[1:]]),
    ):
        assert not set(one) & set(other)
