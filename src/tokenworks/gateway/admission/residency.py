"""A residency policy holds for all that is told of a request and for all that keeps what it says, before it is sent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenworks.core.caller import Caller
from tokenworks.core.errors import PermissionDenied
from tokenworks.snapshot.records import ResidencyRecord, SinkRecord
from tokenworks.snapshot.residency import CACHE, DATABASE, JOURNAL, LOGS, OBJECTS, Place, broken, holding, told
from tokenworks.snapshot.state import State

RESIDENCY_DENIED = "residency_denied"


def require(policies: Iterable[ResidencyRecord], places: Iterable[Place], *, content: bool = True) -> None:
    """PermissionDenied, with the first reason, unless each of the places proves the policies; see `broken`."""
    if reason := broken(policies, places, content=content):
        raise PermissionDenied(f"This request may not be sent: {reason}.", code=RESIDENCY_DENIED)


def require_storable(caller: Caller, state: State, remedy: str = "", *, also: Sequence[str] = ()) -> None:
    """PermissionDenied when this installation may not keep what the caller's request would have stored.

    `also`: names of other sinks that would get it."""
    policies = state.policies(caller.organization_id, caller.project_id)
    if not policies:
        return
    if reason := broken(policies, holding(state.sinks, DATABASE, OBJECTS, *also)):
        message = f"Nothing of this project may be stored here: {reason}.{remedy}"
        raise PermissionDenied(message, code=RESIDENCY_DENIED)


@dataclass(frozen=True, slots=True)
class Here:
    """Where this gateway is, if its operator states it: what it keeps itself is there and not where the installation
    is. `keeps` names those of the sinks."""

    region: str = ""
    jurisdiction: str = ""
    keeps: tuple[str, ...] = (JOURNAL, LOGS)

    def sinks(self, state: State) -> dict[str, SinkRecord]:
        """As they are for requests that come through this gateway."""
        sinks = dict(state.sinks)
        if self.region or self.jurisdiction:
            for name in self.keeps:
                known = sinks.get(name, SinkRecord(name))
                sinks[name] = SinkRecord(name, self.region, self.jurisdiction, known.retention, known.trains)
        return sinks

    def require_told(self, policies: Sequence[ResidencyRecord], state: State) -> None:
        """PermissionDenied while somebody who is told of every request is where the policies do not allow it."""
        if policies:
            require(policies, told(self.sinks(state)), content=False)

    def uncacheable(self, policies: Sequence[ResidencyRecord], state: State) -> bool:
        return bool(policies) and broken(policies, holding(self.sinks(state), CACHE)) is not None
