"""What is wrong with a file, by line; all of it at once."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class ConfigError(Exception):
    """`problems` in the order of their lines; `str()` has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def choose(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest valid one, and all of them."""
    valid = sorted(known)
    near = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    nearest = f"nearest is {near[0]!r}; " if near else ""
    return f"{nearest}valid: {', '.join(valid) or 'none'}"
