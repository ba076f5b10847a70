"""What a worker says about itself: its state, why, and since when others should know."""

import asyncio
from enum import StrEnum


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    DRAINING = "draining"
    FAILED = "failed"


class Status:
    """`changed` wakes whoever reports it. Draining is final: nothing after it but the end."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self.reason = ""
        self.restarts = 0
        self.changed = asyncio.Event()

    def set(self, state: State, reason: str = "") -> None:
        if self.state is State.DRAINING or (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason = state, reason
        self.changed.set()

    def explain(self, reason: str) -> None:
        self.set(self.state, reason)

    @property
    def ready(self) -> bool:
        return self.state is State.READY
