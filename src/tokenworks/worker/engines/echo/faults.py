"""Faults on demand: `fault=NAME after N` in the prompt, or the options `fault` and `fault_after`."""

import re
from dataclasses import dataclass

from tokenworks.core.errors import InvalidRequest

FAULTS = {
    "error_before": "answers 500 before the first byte",
    "slow_first_token": "waits `fault_delay` seconds before the first token",
    "cut": "breaks the connection off",
    "stall": "falls silent and keeps the connection open",
    "garbled": "sends bytes that are no frame",
    "wrong_usage": "reports ten times the output tokens",
    "crash": "the engine dies with all its requests and is started again",
    "kill": "the whole worker process dies, as by kill -9",
}
_DIRECTIVE = re.compile(r"\bfault=(\w*)(?:\s+after\s+(\d+))?")


@dataclass(frozen=True, slots=True)
class Fault:
    """`after` counts the tokens that the answer has before the fault."""

    name: str
    after: int = 0


def find_fault(prompt: str, name: str, after: int) -> Fault | None:
    """The prompt's own wish goes before the options (`name`, `after`)."""
    if directive := _DIRECTIVE.search(prompt):
        name, after = directive[1], int(directive[2] or 0)
    elif not name:
        return None
    if name not in FAULTS:
        raise InvalidRequest(f"Unknown fault {name!r}; known: {', '.join(FAULTS)}.", param="messages")
    return Fault(name, after)
