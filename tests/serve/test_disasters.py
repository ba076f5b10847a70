"""kill -9 of gateway, control, PostgreSQL and Valkey under load, a database that stands still: the bill is what callers
counted. Few rounds here; `make bench ARGS=losses` does fifty."""

import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.disasters import VICTIMS, Provider, provider, reckon, rounds
from tests.load import Load


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with provider(tmp_path_factory.mktemp("disasters")) as made:
        yield made


def test_usage_and_ledger_are_what_clients_counted(everything: Provider, wait_until: Any) -> None:
    load = rounds(everything, len(VICTIMS) + 1, random.Random(4))
    losses = reckon(everything, load, wait_until)
    assert losses.none, losses
    assert losses.told > 0
    assert losses.billed >= losses.told
    assert set(everything.killed) == set(VICTIMS)
    assert not load.garbled


def test_callers_do_not_notice_a_database_that_stands_still(everything: Provider, wait_until: Any) -> None:
    with Load(everything.server, "echo") as load:
        load.wait_for(20)
        everything.postgres.signal(signal.SIGSTOP)
        try:
            load.wait_for(300)
        finally:
            everything.postgres.signal(signal.SIGCONT)
        load.wait_for(20)
    assert set(load.outcomes) == {"answered"}, load.outcomes
    losses = reckon(everything, load, wait_until)
    assert losses.none, losses
