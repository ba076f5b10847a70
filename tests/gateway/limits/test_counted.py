"""A strict limit counts the prompt of a model of ours where a token a byte would refuse what fits by far."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.gateway.limits.kit import DAY, Desk, ran

from tokenworks.core.errors import LimitReached
from tokenworks.gateway.admission.limits.memory import MemoryStore
from tokenworks.gateway.admission.limits.rules import LEAST_OUTPUT, TEMPLATE_TOKENS
from tokenworks.snapshot.records import LimitRecord


def strict(limit: int, kind: str = "input_tokens") -> LimitRecord:
    period = "total" if kind == "spend_nano_usd" else ""
    return LimitRecord("project", "p", None, kind, limit, 0 if period else DAY, period=period, strict=True)


@settings(max_examples=300, deadline=None)
@given(
    prompt=st.integers(1, 3_000),
    bytes_per_token=st.integers(1, 12),
    limit=st.integers(1, 30_000),
    kind=st.sampled_from(["input_tokens", "tokens", "spend_nano_usd"]),
)
def test_it_is_let_in_where_the_real_count_fits_and_never_beyond(
    prompt: int, bytes_per_token: int, limit: int, kind: str
) -> None:
    nano, output = (150, 600 * LEAST_OUTPUT) if kind == "spend_nano_usd" else (1, LEAST_OUTPUT * (kind == "tokens"))
    limit = limit * nano

    async def check() -> None:
        desk = Desk(MemoryStore(), [strict(limit, kind)], counts=prompt)
        body = prompt * bytes_per_token
        try:
            hold = await desk.hold(body)
        except LimitReached:
            least = min(prompt, body) + TEMPLATE_TOKENS
            assert least * nano + output > limit, "there was room for the real count"
            return
        [held] = hold.held
        assert held.granted <= limit
        assert hold.estimate is not None
        # The counted prompt, and whatever the stream may go on to, are within what is held.
        taken = ran(hold, prompt, min(hold.allowed, LEAST_OUTPUT))
        assert (taken if kind == "spend_nano_usd" else prompt + output) <= held.granted
        await hold.settle()

    asyncio.run(check())


@pytest.mark.parametrize(
    "counts, limit, asked",
    [
        (None, 1_500, 0),  # others answer: nobody can count
        (0, 1_500, 1),  # the engine cannot tell
        (1_000, 0, 0),  # there is no room for anything
        (4_000, 1_500, 1),  # counted, and it is too much
    ],
)
def test_it_stays_refused_otherwise(counts: int | None, limit: int, asked: int) -> None:
    async def check() -> None:
        desk = Desk(MemoryStore(), [strict(limit)], counts=counts)
        with pytest.raises(LimitReached):
            await desk.hold(4_000)
        assert desk.asked_to_count == asked

    asyncio.run(check())


def test_what_fits_is_not_counted() -> None:
    async def check() -> None:
        desk = Desk(MemoryStore(), [strict(5_000)], counts=10)
        await desk.hold(4_000)
        assert desk.asked_to_count == 0

    asyncio.run(check())
