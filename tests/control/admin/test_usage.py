"""Rows page by page, filters and sums."""

import pytest

from tokenworks.core.usage import KINDS
from tokenworks.journal import framing

START = 1_600_000_000


@pytest.fixture(scope="module")
def recorded(running, make):
    """Ten attempts, one second apart: 0 is open with progress, 1 failed, the others completed."""
    body = bytearray()
    for number in range(10):
        at = (START + number) * 1_000_000_000
        framing.append(body, make.opened(number, at=at, key_id=f"key_{number % 2}"))
        if number == 0:
            framing.append(body, make.progress(number, 5))
        else:
            framing.append(body, make.settled(number, outcome="failed" if number == 1 else "completed"))
    answer = running.internal("POST", "/internal/v1/journal/gw_usage?first=0", bytes(body))
    assert answer.json == {"acknowledged": 20}
    return running


def _usage(process, **query):
    query = {"start": START, "end": START + 10, **query}
    return process.admin("GET", "/admin/v1/usage?" + "&".join(f"{name}={value}" for name, value in query.items()))


def test_every_field_of_a_row(recorded):
    row = _usage(recorded).json["data"][0]
    assert row == {
        "object": "usage",
        "id": "req_000009:1",
        "request_id": "req_000009",
        "attempt": 1,
        "opened_at": START + 9,
        "settled_at": 1_700_000_001,
        "key_id": "key_1",
        "project_id": "proj",
        "organization_id": "org",
        "protocol": "openai_chat",
        "model": "m",
        "upstream": "up",
        "provider": "provider",
        "upstream_model": "m-1",
        "stream": True,
        "residency": None,
        "guardrails": None,
        "alias": "",
        "alias_version": 0,
        "byok": False,
        "shadow": False,
        "outcome": "completed",
        "status": 200,
        "error": "",
        "finish_reason": "stop",
        "usage": dict.fromkeys(KINDS, 0)
        | {"input": 7, "cached_input": 1, "cache_write": 2, "output": 99, "reasoning": 3},
        "estimated": True,
        "charge": 990,
        "charge_usd": "0.00000099",
        "cost": 0,
        "price": "",
        "cost_price": "",
        "reported": None,
        "counted": None,
        "first_token_ns": 5,
        "duration_ns": 1_000_000_000,
    }


def test_an_unfinished_attempt_shows_what_is_known(recorded):
    row = _usage(recorded).json["data"][-1]
    assert (row["outcome"], row["settled_at"], row["usage"]["output"], row["charge"]) == ("open", None, 5, 50)


def test_sums_are_over_all_pages(recorded):
    totals = _usage(recorded, limit=1).json["totals"]
    assert totals["attempts"] == 10
    assert totals["outcomes"] == {"open": 1, "failed": 1, "completed": 8}
    assert totals["usage"]["output"] == 9 * 99 + 5
    assert totals["charge"] == 9 * 990 + 50
    assert totals["charge_usd"] == "0.00000896"


def test_pages_join_without_gap_or_overlap(recorded):
    seen, after = [], {}
    while True:
        page = _usage(recorded, limit=3, **after).json
        seen += [row["request_id"] for row in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert seen == [f"req_{number:06d}" for number in range(9, -1, -1)]


def test_filters(recorded):
    assert len(_usage(recorded, key_id="key_1").json["data"]) == 5
    assert _usage(recorded, key_id="key_1").json["totals"]["attempts"] == 5
    assert _usage(recorded, model="other").json["data"] == []
    assert [row["opened_at"] for row in _usage(recorded, start=START + 2, end=START + 4).json["data"]] == [
        START + 3,
        START + 2,
    ]


def test_an_empty_page(recorded):
    page = _usage(recorded, model="other").json
    assert (page["has_more"], page["last_id"], page["totals"]["attempts"]) == (False, None, 0)
    assert page["totals"]["charge_usd"] == "0"


@pytest.mark.parametrize(
    "query, param",
    [
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"start": "yesterday"}, "start"),
        ({"end": 10**20}, "end"),
        ({"after": "req_000001"}, "after"),
        ({"after": "none:1"}, "after"),
        ({"after": "req:99999999999999999999"}, "after"),
    ],
)
def test_refused_with_the_parameters_name(recorded, query, param):
    answer = _usage(recorded, **query)
    assert (answer.status, answer.error["param"]) == (400, param)


def test_last_use_of_a_key_comes_from_the_journal(running, make):
    key = running.admin("POST", "/admin/v1/keys", {"name": "used"}).json
    body = bytearray()
    framing.append(body, make.opened(77, at=1_700_000_000_000_000_000, key_id=key["id"]))
    running.internal("POST", "/internal/v1/journal/gw_last?first=0", bytes(body))
    (listed,) = [each for each in running.admin("GET", "/admin/v1/keys").json["data"] if each["id"] == key["id"]]
    assert listed["last_used_at"] == 1_700_000_000
