"""What is charged and not shipped yet, against counting it all anew each time."""

from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st
from tests.gateway.limits.kit import limit

from tokenworks.core.caller import Caller
from tokenworks.gateway.admission.limits.rules import SPEND, Rules
from tokenworks.gateway.admission.limits.unshipped import Charge, Unshipped
from tokenworks.snapshot.records import LimitRecord, SpendRecord
from tokenworks.snapshot.state import State

BUDGETS = [limit(SPEND, 1, scope=scope, period="day") for scope in ("key", "project", "provider")]
CALLERS = [Caller("k", "p", "o"), Caller("other", "p", "o"), Caller("k", "elsewhere", "o")]
SECOND = 1_000_000_000


@dataclass
class World:
    """`charges`: (position, at, caller, nano), of which the ledger knows those up to `shipped`."""

    unshipped: Unshipped = field(default_factory=lambda: Unshipped("gw"))
    charges: list[tuple[int, int, Caller, int]] = field(default_factory=list)
    state: State = field(default_factory=lambda: State.of(shipped={"gw": 0}))
    limits: list[LimitRecord] = field(default_factory=lambda: BUDGETS[:1])
    rules: Rules = field(default_factory=lambda: Rules({BUDGETS[0].name: BUDGETS[0]}))

    def expected(self, budget: LimitRecord) -> int:
        begins = spend.begins if (spend := self.state.spends.get(budget.name)) else 0
        return sum(
            nano
            for position, at, caller, nano in self.charges
            if position > self.state.shipped["gw"]
            and at >= begins * SECOND
            and (budget.scope == "provider" or budget.id in (caller.key_id, caller.project_id))
        )


@given(st.data())
def test_sums_are_what_counting_anew_would_say(data: st.DataObject) -> None:
    world = World()
    free = list(range(1, 60))
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(("charge", "charge", "charge", "shipped", "period", "limits"))):
            case "charge":  # they end in another order than they were written in
                position = free.pop(data.draw(st.integers(0, 3)))
                at, caller = data.draw(st.integers(0, 40)) * SECOND, data.draw(st.sampled_from(CALLERS))
                charge = (position, at, caller, data.draw(st.integers(1, 100)))
                world.charges.append(charge)
                world.unshipped.note(Charge(position, at, caller, "m", "acme", charge[3]), world.rules)
            case "shipped":
                shipped = {"gw": data.draw(st.integers(world.state.shipped["gw"], 60))}
                world.state = replace(world.state, shipped=shipped)
            case "period":
                budget, begins = data.draw(st.sampled_from(BUDGETS)), data.draw(st.integers(0, 40))
                spends = {**world.state.spends, budget.name: SpendRecord(budget.name, begins, 0)}
                world.state = replace(world.state, spends=spends)
            case _:
                world.limits = data.draw(st.lists(st.sampled_from(BUDGETS), min_size=1, unique_by=lambda each: each.id))
                world.rules = Rules({each.name: each for each in world.limits})
        for budget in world.limits:
            assert world.unshipped.of(budget.name, world.state, world.rules) == world.expected(budget)
