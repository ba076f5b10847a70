"""What a plan over 200 targets costs a request: by a look-up mostly, by a full comparison ten times a second. And what
it costs to find out which model a virtual one stands for."""

import json
import statistics
import time
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from tokenworks.core.caller import Caller
from tokenworks.core.routing import Preferences
from tokenworks.core.usage import Usage
from tokenworks.gateway.routing.aliases import resolved
from tokenworks.gateway.routing.observed import Observed
from tokenworks.gateway.routing.plan import Facts, judge
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.routing.vocabulary import read
from tokenworks.protocols import codec
from tokenworks.snapshot.records import (
    FREE,
    AliasRecord,
    ModelRecord,
    PolicyRecord,
    PriceRecord,
    TargetRecord,
    UpstreamRecord,
)
from tokenworks.snapshot.state import State

TARGETS, ROUNDS, REQUESTS = 200, 5, 2_000
TARGET, RESOLVED = 150.0, 10.0
RULES = [
    {"when": {"metadata": {"tier": ["gold", "platinum"]}}, "to": "m"},
    {"when": {"user": {"prefix": "test-"}, "needs": ["tools"]}, "to": "m"},
    {"when": {"prompt_tokens": {"above": 50_000}, "hours": "08:00-18:00"}, "to": "m"},
]
ALIASES = [
    AliasRecord("chat", 1, 1, {"to": {"m": 9, "inner": 1}, "canary": {"to": "inner", "percent": 50}, "rules": RULES}),
    AliasRecord("inner", 1, 1, {"to": {"m": 1, "n": 1}, "shadow": {"to": "m", "percent": 10}}),
]
CALLER = Caller("key", "project", "organization")


def main() -> None:
    observed = Observed()
    upstreams = [UpstreamRecord(f"u{n}", f"p{n}", ("openai_chat",), "http://x", region="eu") for n in range(TARGETS)]
    targets = []
    for number, upstream in enumerate(upstreams):
        rates = {"input": 1_000_000_000 + number, "output": 2_000_000_000, "cached_input": 100_000_000}
        targets.append(TargetRecord(upstream.id, "x", (PriceRecord(rates),)))
        observed.answered(upstream.id, "x", Usage(input=1000, cached_input=number, output=100), 0.2, 1.0)
    model = ModelRecord("m", 1, tuple(targets), prices=(FREE,), policy=PolicyRecord(sort="balanced"))
    state = State.of(revision=1, keys=[], models=[model], upstreams=upstreams)
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello, who are you?"}]}).encode()
    request = codec("openai_chat").decode_request(body)
    facts = Facts(observed=observed)
    planner = Planner(facts)

    def each(count: int, work: object) -> float:
        """Median microseconds of a call."""
        rounds = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            for _ in range(count):
                work()  # type: ignore[operator]
            rounds.append((time.perf_counter() - begun) / count * 1e6)
        return statistics.median(rounds)

    reading = each(REQUESTS, lambda: read(body, ()))
    kept = each(REQUESTS, lambda: planner.plan(request, CALLER, state))
    wishes = Preferences(sort="price", ignore=("p1",), zdr=False, regions=("eu",), max_latency={0.5: 3.0})
    wished = each(REQUESTS, lambda: planner.plan(replace(request, routing=wishes), CALLER, state))
    full = each(20, lambda: judge(request, CALLER, state, facts))
    named = replace(state, aliases={alias.name: alias for alias in ALIASES})
    resolving = each(REQUESTS, lambda: resolved("chat", request, CALLER, named))
    table = Table(title=f"Routing over {TARGETS} targets, microseconds (median of {ROUNDS})")
    for column in ("", "µs", "target"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("a plan, comparisons included as they come", f"{kept:.0f}", f"{TARGET:.0f}")
    table.add_row("the same for a caller with wishes of its own", f"{wished:.0f}", f"{TARGET:.0f}")
    table.add_row("a full comparison, made every 0.1 s at most", f"{full:.0f}", "")
    table.add_row("a virtual model: three rules, a canary, weights", f"{resolving:.1f}", f"{RESOLVED:.0f}")
    table.add_row("looking for words about routing in a body", f"{reading:.2f}", "")
    Console().print(table)
