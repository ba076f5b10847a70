"""An answer on its way from the engine's thread to the event loop."""

import asyncio
from dataclasses import dataclass, field

from tokenworks.core.errors import TokenworksError
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.engines.llama.choice import Choice


@dataclass(eq=False, slots=True)
class Answer:
    """`choices` belong to the engine's thread once it is submitted; the rest to the event loop."""

    choices: list[Choice]
    accepted: "asyncio.Future[None]"
    """Done when all its sequences are in the queue; an error when they were refused."""
    events: list[wire.Event] = field(default_factory=list)
    error: Exception | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    left: int = 0
    """Choices whose finish did not come yet."""

    def __post_init__(self) -> None:
        self.left = len(self.choices)

    def deliver(self, events: list[wire.Event], error: TokenworksError | None = None) -> None:
        self.events += events
        self.left -= sum(isinstance(event, wire.Finish) for event in events)
        self.error = self.error or error
        self.ready.set()

    def end(self, error: Exception) -> None:
        """Nothing more can come."""
        self.error = self.error or error
        if not self.accepted.done():
            self.accepted.set_exception(error)
        self.ready.set()

    def accept(self, error: TokenworksError | None) -> None:
        if not self.accepted.done():
            if error is None:
                self.accepted.set_result(None)
            else:
                self.accepted.set_exception(error)

    @property
    def unfinished(self) -> bool:
        return bool(self.left or self.events)

    async def batch(self) -> list[wire.Event]:
        """What came since the last call; waits for it. Raises the answer's error after its last events."""
        await self.ready.wait()
        if not self.events and self.error is not None:
            raise self.error
        self.ready.clear()
        events, self.events = self.events, []
        if self.error is not None:
            self.ready.set()
        return events
