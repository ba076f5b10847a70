"""How commands speak: tables for people, JSON for scripts, one line with the remedy when something failed."""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

FAILED, USAGE = 1, 2

PIPE_WIDTH = 1000
"""Through a pipe nothing is cut off."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


class CommandFailed(Exception):
    """Ends the command; the message is one line that says what is wrong and what to do."""

    def __init__(self, message: str, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def complain(message: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[red]error:[/red] {escape(message)}")


def print_json(data: Any) -> None:
    print(json.dumps(data, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), wrap: Sequence[str] = ()
) -> None:
    """`right` names the columns of numbers, `wrap` those that take several lines in a narrow terminal; none is cut."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, justify=justify, no_wrap=column not in wrap, overflow="fold", min_width=len(column))
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console.print(table)


def note(message: str) -> None:
    """Something for people beside the result."""
    console.print(Text(message, style="dim"))


def when(seconds: float | None) -> str:
    """Unix seconds in local time; a dash for never."""
    return "–" if seconds is None else datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def file_size(count: int | None) -> str:
    """Decimal, as shops and hubs count: 93 MB."""
    if count is None:
        return "–"
    for unit, digits in (("B", 0), ("kB", 0), ("MB", 0), ("GB", 1)):
        if count < 1000 or unit == "GB":
            return f"{count:.{digits}f} {unit}"
        count /= 1000  # type: ignore[assignment]
    raise AssertionError
