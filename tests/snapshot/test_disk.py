import logging
import os
from pathlib import Path

import pytest

from tokenworks.snapshot import disk
from tokenworks.snapshot.records import Full, KeyRecord
from tokenworks.snapshot.state import State

STATE = State.of(revision=3, keys=[KeyRecord("k", "d", "p", "o")])


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    assert disk.load(path) is None
    disk.save(path, State())
    disk.save(path, STATE)
    assert disk.load(path) == STATE
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_any_damage_is_reported_and_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "snapshot"
    disk.save(path, STATE)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place])
        assert disk.load(path) is None, place
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert disk.load(path) is None, place
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert len(caplog.records) == 2 * len(whole)


def test_another_version_is_reported_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "snapshot"
    monkeypatch.setattr(State, "full", lambda state: Full(99, state.revision, (), (), ()))
    disk.save(path, STATE)
    assert disk.load(path) is None
    assert "version 99" in caplog.text
    (tmp_path / "directory").mkdir()
    assert disk.load(tmp_path / "directory") is None
    assert "Is a directory" in caplog.text


def test_a_failed_save_leaves_the_old_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "snapshot"
    disk.save(path, STATE)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        disk.save(path, State())
    monkeypatch.undo()
    assert disk.load(path) == STATE
    assert list(tmp_path.iterdir()) == [path]
