"""Options: what the page says is what the engines take."""

import re
from pathlib import Path

import msgspec
import pytest

from tokenworks.worker.engines.base import OptionError, read_options
from tokenworks.worker.engines.echo.engine import Options as EchoOptions
from tokenworks.worker.engines.echo.faults import FAULTS
from tokenworks.worker.engines.llama_server.plan import Options as LlamaOptions

PAGE = (Path(__file__).parents[3] / "docs" / "add-an-engine.md").read_text()


def first_cells(heading: str) -> set[str]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return {
        name for row in re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }


def test_the_page_lists_every_option_and_fault() -> None:
    assert first_cells("Options of `echo`") == {*EchoOptions.__struct_fields__, *FAULTS}
    assert first_cells("Options of `llama_server`") == {*LlamaOptions.__struct_fields__}


class Some(msgspec.Struct, frozen=True):
    count: int = 1
    share: float = 0.5
    on: bool = False
    name: str | None = None


def test_text_becomes_typed() -> None:
    assert read_options(Some, {"count": "3", "share": "1", "on": "true", "name": "x"}) == Some(3, 1.0, True, "x")
    assert read_options(Some, {"count": 3, "on": True}) == Some(3, on=True)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"cuont": 1}, "did you mean 'count'"), ({"count": "x"}, "count=x"), ({"zzz": 1}, "known: count")],
)
def test_what_is_wrong_is_named(given: dict[str, object], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        read_options(Some, given)
