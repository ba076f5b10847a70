"""kill -9 of gateway, control, PostgreSQL and Valkey under load: the bill is what callers counted. Few rounds here;
`make bench ARGS=losses` does fifty."""

import random
from pathlib import Path
from typing import Any

from tests.disasters import VICTIMS, provider, reckon, rounds


def test_usage_and_ledger_are_what_clients_counted(tmp_path: Path, wait_until: Any) -> None:
    with provider(tmp_path) as everything:
        load = rounds(everything, len(VICTIMS) + 1, random.Random(4))
        losses = reckon(everything, load, wait_until)
        assert losses.none, losses
        assert losses.told > 0
        assert losses.billed >= losses.told
        assert set(everything.killed) == set(VICTIMS)
        assert not load.garbled
