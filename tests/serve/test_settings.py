"""Precedence of the settings, and where paths are relative to."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.config.reader import SERVE
from tokenworks.serve.settings import ServeSettings, find_config, resolve

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "host": st.sampled_from(["0.0.0.0", "::1", "10.0.0.7"]),
    "port": st.integers(0, 65535),
    "model": st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, unique=True),
    "verbose": st.booleans(),
}
some = st.fixed_dictionaries({}, optional=VALUES)


@given(given_options=some, file_options=some)
def test_the_command_line_wins_over_the_file_and_the_file_over_the_default(
    given_options: dict[str, Any], file_options: dict[str, Any]
) -> None:
    settings = resolve(given_options, file_options)
    for name in VALUES:
        expected = given_options.get(name, file_options.get(name, getattr(ServeSettings(), name)))
        assert getattr(settings, name) == (tuple(expected) if isinstance(expected, list) else expected)


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_an_option_that_was_not_given_leaves_the_file_its_say(nothing: object) -> None:
    assert resolve({"model": nothing}, {"model": ("a",)}).model == ("a",)


@pytest.mark.parametrize("value", [0, False])
def test_a_given_value_that_is_zero_or_false_counts_as_given(value: object) -> None:
    assert resolve({"port": value}, {"port": 9000}).port == value


def test_every_option_of_the_file_is_one_of_ours() -> None:
    assert set(SERVE) == {field.name for field in fields(ServeSettings)} - {"config"}


def test_paths_in_the_file_are_relative_to_the_file() -> None:
    file = {"data_dir": "data", "cache_dir": "/cache", "catalog": ("mine.toml",)}
    settings = resolve({}, file, Path("/etc/tokenworks/tokenworks.toml"))
    assert settings.data_dir == Path("/etc/tokenworks/data")
    assert settings.cache_dir == Path("/cache")
    assert settings.catalog == (Path("/etc/tokenworks/mine.toml"),)


def test_paths_on_the_command_line_are_relative_to_the_working_directory() -> None:
    settings = resolve({"data_dir": Path("here")}, {"data_dir": "there"}, Path("/etc/tokenworks.toml"))
    assert settings.data_dir == Path("here")


def test_the_file_in_the_working_directory_is_found_and_the_named_one_preferred(tmp_path: Path) -> None:
    assert find_config(None, tmp_path) is None
    beside = tmp_path / "tokenworks.toml"
    beside.touch()
    assert find_config(None, tmp_path) == beside
    assert find_config(Path("other.toml"), tmp_path) == Path("other.toml")
