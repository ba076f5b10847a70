"""`tokenworks prices` against a running server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def test_set_list_history_and_end(run: Run, at: dict[str, str]) -> None:
    words = ["prices", "set", "by-hand", "input=2", "output=10", "--when", "tier=batch:0.5"]
    (made,) = json.loads(run(*words, "--when", "above=272000:input=2,output=3/2", "--json", **at).stdout)
    assert made["rates"] == {"input": "2", "output": "10"}
    assert [each["above"] for each in made["when"]] == [None, 272000]
    table = run("prices", "list", **at).stdout
    assert re.search(
        rf"^{made['id']} +by-hand +input 2, output 10 +tier batch: x1/2; above 272000: input x2", table, re.M
    )
    assert run("prices", "end", made["id"], **at).stdout == f"{made['id']} is ended.\n"
    assert made["id"] not in run("prices", "list", **at).stdout
    (past,) = json.loads(run("prices", "history", "by-hand", "--json", **at).stdout)
    assert (past["id"], past["state"]) == (made["id"], "past")


def test_a_price_to_come(run: Run, at: dict[str, str]) -> None:
    words = ["prices", "set", "coming", "input=1", "output=1", "--from", "2100-01-01", "--json"]
    (made,) = json.loads(run(*words, **at).stdout)
    assert (made["from"], made["state"]) == (4102444800, "scheduled")
    assert run("prices", "end", made["id"], **at).stdout == f"{made['id']} is taken back.\n"


def test_import(run: Run, at: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text('{"x": {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6, "a_cost": 1}}')
    words = ["prices", "import", str(path), "--price", "--name", "x=imported"]
    shown = run(*words, "--dry-run", **at).stdout
    assert "input 1, output 2" in shown
    assert "x of the file: not understood, and left out: a_cost" in shown
    assert "Nothing was changed: this was a dry run." in shown
    assert "imported" not in run("prices", "list", **at).stdout
    run(*words, **at)
    assert "file prices.json" in run("prices", "list", **at).stdout
    nothing = run("prices", "import", str(path), **at).stdout
    assert nothing == "The file knows no target of yours; say which entry is for what with --name THEIRS=OURS.\n"
    path.write_text("{")
    assert "no price was changed" in run(*words, code=2, **at).stderr


def test_check(run: Run, at: dict[str, str]) -> None:
    assert run("prices", "check", **at).stdout == "Every model has its price, every target its cost.\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "input"], "'input' cannot be read; write it as in input=0.15"),
        (["x", "input=1", "output=1", "--when", "batch:0.5"], "'batch' cannot be read; write it as in tier=batch:0.5"),
        (["x", "input=1", "output=1", "--when", "day=monday:0.5"], "'day' is no condition; use tier, above or region"),
        (["x", "input=1", "output=1", "--from", "soon"], "'soon' is no date; write 2027-01-31"),
    ],
)
def test_what_cannot_be_read_says_how(run: Run, at: dict[str, str], words: list[str], message: str) -> None:
    assert message in " ".join(run("prices", "set", *words, code=2, **at).stderr.split())
