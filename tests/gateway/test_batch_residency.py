"""A line of a batch that is older than its project's policy: its result would be stored, so it is an error."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tokenworks.batches.records import LineRecord, ResultRecord
from tokenworks.core.caller import Caller
from tokenworks.gateway.batches.line import run
from tokenworks.gateway.pipeline import Pipeline
from tokenworks.gateway.routing.plan import Facts
from tokenworks.gateway.routing.planner import Planner
from tokenworks.protocols import codec
from tokenworks.snapshot.records import ResidencyRecord, SinkRecord
from tokenworks.snapshot.residency import OWN
from tokenworks.snapshot.state import State

BODY = b'{"model": "m", "messages": [{"role": "user", "content": "Hi"}]}'


class Keys:
    async def find(self, digest: str) -> Caller:
        return Caller("key", "project", "organization")


@pytest.mark.parametrize("region, status", [("", 403), ("eu", 404)])
def test_a_line_is_held_to_the_policy_of_now(region: str, status: int) -> None:
    """Where it may be stored the line is planned, and there is no such model."""
    policy = ResidencyRecord("organization", regions=("eu",))
    sinks = {name: SinkRecord(name, region) for name in OWN}
    snapshot: Any = SimpleNamespace(state=State(residency={policy.id: policy}, sinks=sinks))
    nothing: Any = SimpleNamespace()
    shadows: Any = SimpleNamespace(copy=lambda *_: None)
    planner = Planner(Facts())
    pipeline = Pipeline(snapshot, nothing, nothing, planner, nothing, shadows, nothing, nothing)
    line = LineRecord("batch", 1, 1, 0, "req_1", "/v1/chat/completions", "digest", BODY)
    keys: Any = Keys()
    result = asyncio.run(run(line, keys, codec("openai_chat"), pipeline.serve))
    assert isinstance(result, ResultRecord)
    assert result.status == status, result.body
    assert (b"residency_denied" in result.body) == (status == 403)
