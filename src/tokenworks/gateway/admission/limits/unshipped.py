"""What this gateway has charged and the ledger does not know yet: the snapshot's spends and these are what is spent.

Exact, because the snapshot tells with its sums up to which record of this gateway's journal they reach. Sums are kept
as charges come and go; only a new period of a budget, or other limits, make one count anew.
"""

from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from tokenworks.core.caller import Caller
from tokenworks.gateway.admission.limits.rules import Rules
from tokenworks.journal.records import Opened, Record, Settled
from tokenworks.snapshot.state import State


class Charge(msgspec.Struct):
    """`position`: of the record after its settlement. `at` is Unix nanoseconds. `budgets`: in whose sums it is."""

    position: int
    at: int
    caller: Caller
    model: str
    provider: str
    nano: int
    budgets: tuple[str, ...] = ()


class Unshipped:
    """`kept`: the numbered records that the journal held at start."""

    def __init__(self, gateway_id: str, kept: Iterable[tuple[int, Record]] = ()) -> None:
        self._gateway_id = gateway_id
        self._charges: deque[Charge] = deque(_charges(kept))
        """In the order of their positions."""
        self._sums: dict[str, int] = {}
        self._begins: dict[str, int] = {}
        """The period that a sum is of."""
        self._rules: Rules | None = None
        self._seen: Mapping[str, int] = {}
        self._shipped = 0

    def note(self, charge: Charge, rules: Rules) -> None:
        if charge.position <= self._shipped:
            return  # the ledger was quicker
        if rules is self._rules:
            self._count(charge, rules.budgets(charge.caller, charge.model, charge.provider))
        charges = self._charges
        at = len(charges)
        while at and charges[at - 1].position > charge.position:
            at -= 1
        charges.insert(at, charge)

    def of(self, budget: str, state: State, rules: Rules) -> int:
        """Nano-dollars of the period that the snapshot speaks of."""
        if state.shipped is not self._seen:
            self._forget(state.shipped)
        if rules is not self._rules:
            self._rules = rules
            self._sums, self._begins = {}, {name: spend.begins for name, spend in state.spends.items()}
            for charge in self._charges:
                charge.budgets = ()
                self._count(charge, rules.budgets(charge.caller, charge.model, charge.provider))
        spend = state.spends.get(budget)
        begins = spend.begins if spend is not None else 0
        if begins != self._begins.get(budget, 0):
            self._begin(budget, begins, rules)
        return self._sums.get(budget, 0)

    def _forget(self, seen: Mapping[str, int]) -> None:
        """What the ledger knows by now."""
        self._seen, self._shipped = seen, seen.get(self._gateway_id, 0)
        while self._charges and self._charges[0].position <= self._shipped:
            charge = self._charges.popleft()
            for name in charge.budgets:
                self._sums[name] -= charge.nano

    def _begin(self, budget: str, begins: int, rules: Rules) -> None:
        """Another period of a budget."""
        self._begins[budget], self._sums[budget] = begins, 0
        for charge in self._charges:
            counted = rules.budgets(charge.caller, charge.model, charge.provider)
            if budget in counted:
                charge.budgets = tuple(name for name in charge.budgets if name != budget)
                self._count(charge, (budget,))

    def _count(self, charge: Charge, budgets: Iterable[str]) -> None:
        """Into the sums of those whose period it falls in."""
        for name in budgets:
            if charge.at >= self._begins.get(name, 0) * 1_000_000_000:
                self._sums[name] = self._sums.get(name, 0) + charge.nano
                charge.budgets += (name,)


def _charges(kept: Iterable[tuple[int, Record]]) -> Iterable[Charge]:
    opened: dict[tuple[str, int], Opened] = {}
    for number, record in kept:
        attempt = (record.request_id, record.attempt)
        if isinstance(record, Opened):
            opened[attempt] = record
        elif isinstance(record, Settled) and (begun := opened.pop(attempt, None)) is not None:
            caller = Caller(begun.key_id, begun.project_id, begun.organization_id)
            if spent := record.cost if begun.shadow else record.charge:
                yield Charge(number + 1, begun.at, caller, begun.model, begun.provider, spent)
