"""What this gateway has charged and the ledger does not know yet: the snapshot's spends and these are what is spent.

Exact, because the snapshot tells with its sums up to which record of this gateway's journal they reach.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tokenworks.core.caller import Caller
from tokenworks.gateway.admission.limits.rules import SPEND, Rules
from tokenworks.journal.records import Opened, Record, Settled
from tokenworks.snapshot.records import SpendRecord
from tokenworks.snapshot.state import State


@dataclass(frozen=True, slots=True)
class Charge:
    """`position`: of the record after its settlement. `at` is Unix nanoseconds."""

    position: int
    at: int
    caller: Caller
    model: str
    provider: str
    nano: int

    def budgets(self, rules: Rules) -> list[str]:
        found = rules.for_request(self.caller, self.model) + rules.for_provider(self.provider, self.model)
        return [limit.name for limit in found if limit.kind == SPEND]


class Unshipped:
    """`kept`: the numbered records that the journal held at start."""

    def __init__(self, gateway_id: str, kept: Iterable[tuple[int, Record]] = ()) -> None:
        self._gateway_id = gateway_id
        self._charges: deque[Charge] = deque(_charges(kept))
        self._sums: dict[str, int] = {}
        self._seen: tuple[Mapping[str, int], Mapping[str, SpendRecord], Rules] | None = None

    def note(self, charge: Charge, rules: Rules) -> None:
        if self._seen is not None and charge.position <= self._seen[0].get(self._gateway_id, 0):
            return  # the ledger was quicker
        self._charges.append(charge)
        for name in charge.budgets(rules):
            self._sums[name] = self._sums.get(name, 0) + charge.nano

    def of(self, budget: str, state: State, rules: Rules) -> int:
        """Nano-dollars of the period that the snapshot speaks of."""
        seen = self._seen
        if seen is None or seen[0] is not state.shipped or seen[1] is not state.spends or seen[2] is not rules:
            self._follow(state, rules)
        return self._sums.get(budget, 0)

    def _follow(self, state: State, rules: Rules) -> None:
        self._seen = (state.shipped, state.spends, rules)
        shipped = state.shipped.get(self._gateway_id, 0)
        while self._charges and self._charges[0].position <= shipped:
            self._charges.popleft()
        sums: dict[str, int] = defaultdict(int)
        for charge in self._charges:
            for name in charge.budgets(rules) if charge.position > shipped else ():
                spend = state.spends.get(name)
                if spend is None or charge.at >= spend.begins * 1_000_000_000:
                    sums[name] += charge.nano
        self._sums = dict(sums)


def _charges(kept: Iterable[tuple[int, Record]]) -> Iterable[Charge]:
    opened: dict[tuple[str, int], Opened] = {}
    for number, record in kept:
        attempt = (record.request_id, record.attempt)
        if isinstance(record, Opened):
            opened[attempt] = record
        elif isinstance(record, Settled) and (begun := opened.pop(attempt, None)) is not None and record.charge:
            caller = Caller(begun.key_id, begun.project_id, begun.organization_id)
            yield Charge(number + 1, begun.at, caller, begun.model, begun.provider, record.charge)
