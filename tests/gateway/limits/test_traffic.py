"""Four gateways, one Valkey, 200 concurrent callers, limits of every kind on every level, traffic by hypothesis."""

import asyncio
import contextlib
import multiprocessing
import random
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.gateway.limits.conftest import LimitServer, started
from tests.gateway.limits.kit import DAY, Desk, limit, ran, valkey_at

from tokenworks.core.errors import LimitReached, UpstreamUnavailable
from tokenworks.core.windows import MONTH
from tokenworks.gateway.admission.limits.base import Claim
from tokenworks.gateway.admission.limits.valkey import ValkeyStore

GATEWAYS, CALLERS = 4, 50
EXAMPLES, STEPS = 4, 5
LIMITS = {
    "requests": limit("requests", 600, scope="organization"),
    "input": limit("input_tokens", 40_000, scope="project"),
    "output": limit("output_tokens", 30_000, scope="model"),
    "total": limit("tokens", 60_000),
    "uncached": limit("uncached_input_tokens", 45_000, scope="organization"),
    "running": limit("concurrency", 23, scope="provider"),
    "money": limit("spend_nano_usd", 20_000_000, scope="project", period="month"),
}


def gateway(url: str, number: int, orders: Any, running: Any) -> None:
    """One gateway process: does the traffic it is told and reports what it admitted, counted by its callers."""

    async def caller(desk: Desk, chance: random.Random, appetite: int) -> dict[str, int]:
        body = chance.randint(20, 200)
        try:
            hold = await desk.hold(body, max_output_tokens=chance.choice([None, 50, appetite * 100]))
        except LimitReached:
            return {}
        async with hold:
            provider = "acme"
            try:
                await hold.enter(provider)
            except UpstreamUnavailable:
                provider = "other"
                await hold.enter(provider)
            counted = provider == "acme"
            with running.get_lock():
                running[0] += counted
                running[1] = max(running[0], running[1])
            try:
                await asyncio.sleep(chance.random() / 100)
                if chance.random() < 0.1:
                    raise asyncio.CancelledError  # the caller left before anything came
                output, wanted = (
                    0,
                    chance.randint(0, min(appetite * 100, hold.asked.request.max_output_tokens or 1_000)),
                )
                while output < wanted and await hold.covers(min(output + 20, wanted)):
                    output = min(output + 20, wanted)
                used = chance.randint(0, body)
                charge = ran(hold, used, output, provider)
            finally:
                with running.get_lock():
                    running[0] -= counted
        total = used + output
        return {"requests": 1, "input": used, "output": output, "total": total, "uncached": used, "money": charge}

    async def serve() -> None:
        desk = Desk(ValkeyStore(url, timeout=10), list(LIMITS.values()), name=f"gw{number}", wait=0.2)
        while (order := await asyncio.to_thread(orders.recv)) is not None:
            chance = random.Random(order[0])
            tasks = [asyncio.create_task(caller(desk, chance, order[1])) for _ in range(CALLERS)]
            done = await asyncio.gather(*tasks, return_exceptions=True)
            await desk.admission.settled()
            bugs = [each for each in done if isinstance(each, Exception)]
            left = [{"requests": 1} for each in done if isinstance(each, asyncio.CancelledError)]
            orders.send(bugs or left + [each for each in done if isinstance(each, dict)])
        await desk.admission.close()

    asyncio.run(serve())


class Traffic(RuleBasedStateMachine):
    server: LimitServer
    gateways: list[Any]
    running: Any

    def __init__(self) -> None:
        super().__init__()
        with self.server.client() as client:
            client.flushall()
        self.admitted = dict.fromkeys(LIMITS, 0)
        self.running[1] = 0
        self.fresh = True
        asyncio.run(self.rebuilt())

    async def rebuilt(self) -> None:
        """A store that lost everything gives no budget before gateways had the time to tell what they know."""
        async with valkey_at(self.server.url) as store:
            await store.renew("x", [], 1)
        with self.server.client() as client:
            client.set("tw:born", "1")

    @rule(seed=st.integers(0, 2**32), appetite=st.integers(1, 10))
    def traffic(self, seed: int, appetite: int) -> None:
        for number, orders in enumerate(self.gateways):
            orders.send((seed + number, appetite))
        for orders in self.gateways:
            for one in orders.recv():
                assert isinstance(one, dict), one
                for name, amount in one.items():
                    self.admitted[name] += amount
        self.fresh = False

    @invariant()
    def never_one_unit_too_much(self) -> None:
        over = {name: (used, LIMITS[name].limit) for name, used in self.admitted.items() if used > LIMITS[name].limit}
        assert not over
        assert self.running[1] <= LIMITS["running"].limit

    @precondition(lambda self: not self.fresh)
    @invariant()
    def the_store_counts_what_callers_count_and_gives_the_rest(self) -> None:
        asyncio.run(self._rest())

    async def _rest(self) -> None:
        async with valkey_at(self.server.url) as store:
            rest = []
            for name, record in LIMITS.items():
                window = MONTH if record.period else 0 if name == "running" else DAY
                left = 1 if name == "running" else record.limit - self.admitted[name]
                rest.append(Claim(record.name, left, record.limit, window, lease=name == "running"))
            counts = [reading.used for reading in await store.read(rest)]
            assert dict(zip(LIMITS, counts, strict=True)) == {**self.admitted, "running": 0}
            assert (await store.reserve("rest", rest, 60)).refusal is None, "nothing is refused while there is room"
            await store.settle("rest", {})
            with self.server.client() as client:
                client.delete("tw:h:rest")


Traffic.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
)


class TestTraffic(Traffic.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        context = multiprocessing.get_context("spawn")
        cls.stack = contextlib.ExitStack()
        Traffic.server = cls.stack.enter_context(started())
        Traffic.running = context.Array("i", 2)
        Traffic.gateways = []
        for number in range(GATEWAYS):
            ours, theirs = context.Pipe()
            process = context.Process(target=gateway, args=(Traffic.server.url, number, theirs, Traffic.running))
            process.start()
            cls.stack.callback(process.join, 30)
            cls.stack.callback(ours.send, None)
            Traffic.gateways.append(ours)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.stack.close()
