"""Threads sleep while they wait as long as others use the cores, by what the kernel tells of the computing thread."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tokenworks.worker.engines.llama.spinning import CROWDED, QUIET, SCHEDULE, WINDOW, Spinning


class Machine:
    """One thread's share of the time spent waiting for a core, written where the kernel would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waited = 0
        path.write_text("0 0 0\n")
        self.spinning = Spinning(2, 2, path)

    def compute(self, share: float) -> bool:
        self.waited += round(share * WINDOW * 1e9)
        self.path.write_text(f"12 {self.waited} 3\n")
        self.spinning.add(WINDOW)
        return self.spinning.sleeps


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    found = Machine(tmp_path / "schedstat")
    yield found
    found.spinning.close()


def test_they_sleep_on_a_crowded_machine_and_spin_again_on_a_quiet_one(machine: Machine) -> None:
    between = (CROWDED + QUIET) / 2
    seen = [machine.compute(share) for share in (0, between, 2 * CROWDED, between, 2 * CROWDED, 0, between)]
    assert seen == [False, False, True, True, True, False, False]


def test_a_short_look_decides_nothing(machine: Machine) -> None:
    machine.path.write_text("12 999999999 3\n")
    machine.spinning.add(WINDOW / 2)
    assert not machine.spinning.sleeps


def test_the_second_team_ends_with_it(machine: Machine) -> None:
    assert machine.compute(1.0)
    thread = machine.spinning._team._thread  # engines of other tests may have such threads, too
    assert thread is not None and thread.is_alive()
    machine.spinning.close()
    assert not thread.is_alive()


@pytest.mark.parametrize(("threads", "cores"), [(1, 2), (4, 2)])
def test_a_thread_alone_or_more_than_cores_is_left_as_it_is(tmp_path: Path, threads: int, cores: int) -> None:
    schedule = tmp_path / "schedstat"
    schedule.write_text("0 0 0\n")
    spinning = Spinning(threads, cores, schedule)
    schedule.write_text("0 999999999 0\n")
    spinning.add(WINDOW)
    assert not spinning.sleeps


def test_a_system_that_does_not_tell_is_left_as_it_is(tmp_path: Path) -> None:
    spinning = Spinning(2, 2, tmp_path / "none")
    spinning.add(WINDOW)
    assert not spinning.sleeps


def test_linux_tells() -> None:
    assert len(SCHEDULE.read_text().split()) == 3
