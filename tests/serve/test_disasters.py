"""kill -9 of gateways, control, PostgreSQL and Valkey under load, fifty times; a database that stands still: the bill
is what callers counted. `make bench ARGS=losses` prints the figures."""

import random
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.disasters import ROUNDS, VICTIMS, Fleet, fleet, reckon, rounds


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(tmp_path_factory.mktemp("disasters")) as made:
        yield made


def test_usage_and_ledger_are_what_clients_counted(everything: Fleet, wait_until: Any) -> None:
    load = rounds(everything, ROUNDS, random.Random(4))
    losses = reckon(everything, load, wait_until)
    assert losses.none, losses
    assert losses.told > 0
    assert losses.billed >= losses.told
    assert losses.cut_paid <= losses.cut_received
    assert set(everything.killed) == set(VICTIMS)
    assert not load.garbled


def test_callers_do_not_notice_a_database_that_stands_still(everything: Fleet, wait_until: Any) -> None:
    with everything.load() as load:
        everything.postgres.signal(signal.SIGSTOP)
        try:
            load.wait_for(60)
        finally:
            everything.postgres.signal(signal.SIGCONT)
        load.wait_for(10)
    assert set(load.outcomes) == {"answered"}, load.outcomes
    losses = reckon(everything, load, wait_until)
    assert losses.none, losses
