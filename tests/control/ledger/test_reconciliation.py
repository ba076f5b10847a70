"""Providers' exports in their documented shapes, beside our own usage: the drift, and the requests behind it."""

import itertools
import json

import pytest

from tokenworks.control.ledger.reconciliation import exports
from tokenworks.core.errors import InvalidRequest
from tokenworks.journal.records import UsageRecord

pytestmark = pytest.mark.both_databases
DAY = 1_730_419_200  # 2024-11-01
NUMBERS = itertools.count()


def page(*buckets):
    return json.dumps({"object": "page", "data": list(buckets), "has_more": False, "next_page": None})


def seconds_bucket(*results, day=0):
    start = DAY + day * 86400
    return {"object": "bucket", "start_time": start, "end_time": start + 86400, "results": list(results)}


def completions(**changes):
    """https://platform.openai.com/docs/api-reference/usage/completions_object"""
    return {
        "object": "organization.usage.completions.result", "input_tokens": 1000, "output_tokens": 50,
        "input_cached_tokens": 800, "input_audio_tokens": 0, "output_audio_tokens": 0, "num_model_requests": 1,
        "project_id": None, "user_id": None, "api_key_id": None, "model": "gpt-4o-mini-2024-07-18", "batch": None,
    } | changes  # fmt: skip


def costs(value, line_item="gpt-4o-mini-2024-07-18, input"):
    """https://platform.openai.com/docs/api-reference/usage/costs_object"""
    amount = {"value": value, "currency": "usd"}
    return {"object": "organization.costs.result", "amount": amount, "line_item": line_item, "project_id": None}


def dated_bucket(*results, day=1):
    return {"starting_at": f"2024-11-{day:02d}T00:00:00Z", "ending_at": f"2024-11-{day + 1:02d}T00:00:00Z",
            "results": list(results)}  # fmt: skip


MESSAGES = {
    "uncached_input_tokens": 1500,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "cache_read_input_tokens": 200, "output_tokens": 500, "server_tool_use": {"web_search_requests": 10},
    "api_key_id": "apikey_01Rj2N8SVvo6BePZj99NhmiT", "workspace_id": None, "model": "claude-sonnet-4-20250514",
    "service_tier": "standard", "context_window": "0-200k",
}  # fmt: skip
COST_REPORT = {
    "currency": "USD", "amount": "123.78912", "workspace_id": None, "cost_type": "tokens",
    "description": "Claude Sonnet 4 Usage - Input Tokens", "context_window": "0-200k",
    "model": "claude-sonnet-4-20250514", "service_tier": "standard", "token_type": "uncached_input_tokens",
}  # fmt: skip


def read(*texts):
    return [(row.day, row.model, row.key, dict(row.measures)) for row in exports.read(list(texts)).rows]


def test_usage_of_completions_and_its_cached_part():
    row = ("2024-11-01", "gpt-4o-mini-2024-07-18", "")
    plain = {"requests": 1, "input": 200, "cached_input": 800, "cache_write": 0, "output": 50}
    assert read(page(seconds_bucket(completions()))) == [(*row, plain)]
    newer = completions(input_uncached_tokens=150, input_cache_write_tokens=50, api_key_id="key_1")
    assert read(page(seconds_bucket(newer))) == [(*row[:2], "key_1", {**plain, "input": 150, "cache_write": 50})]


def test_costs_keep_every_digit():
    text = page(seconds_bucket(costs(0.06))).replace("0.06", "0.0600000004999999999999")
    assert read(text) == [("2024-11-01", "gpt-4o-mini-2024-07-18", "", {"cost": 60_000_000})]
    assert read(page(seconds_bucket(costs(0.1 + 0.2))))[0][3] == {"cost": 300_000_000}


def test_usage_of_messages_and_its_kinds_of_cache():
    assert read(page(dated_bucket(MESSAGES))) == [
        (
            "2024-11-01",
            "claude-sonnet-4-20250514",
            "apikey_01Rj2N8SVvo6BePZj99NhmiT",
            {"input": 1500, "cached_input": 200, "cache_write": 1500, "output": 500},
        )
    ]


def test_a_cost_report_is_in_cents():
    assert read(page(dated_bucket(COST_REPORT)))[0][3] == {"cost": 1_237_891_200}


def test_csv_and_several_pages_in_one_file():
    table = "day,model,key,requests,output,cost_usd\r\n2024-11-01,m,k,2,30,0.5\r\n2024-11-02,m,,0,,\r\n"
    assert read(table) == [
        ("2024-11-01", "m", "k", {"requests": 2, "output": 30, "cost": 500_000_000}),
        ("2024-11-02", "m", "", {"requests": 0, "output": 0, "cost": 0}),
    ]
    one, two = page(seconds_bucket(completions())), page(seconds_bucket(completions(), day=1))
    assert read(f"[{one},{two}]") == read(f"{one}\n{two}\n") == read(one, two)
    assert exports.read([page(seconds_bucket(day=3))]).days == {"2024-11-04"}, "a day without usage is covered"


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[1]", '{"data": [{}]}', "day,model\n", "day,model,output,what\n",
        "day,model,output\n2024-13-01,m,1\n", "day,model,output\n2024-11-01,m,many\n",
        page(seconds_bucket(costs("much"))), page({"starting_at": "x", "results": []}),
        page(seconds_bucket(completions(output_tokens=None))), page(dated_bucket({**COST_REPORT, "currency": "EUR"})),
        page({"start_time": 10**30, "results": []}), "day,model,cost_usd\n2024-11-01,m,nan\n",
    ],
)  # fmt: skip
def test_what_is_no_export_is_refused_by_its_number(text):
    with pytest.raises(InvalidRequest, match=r"exports\.1") as caught:
        exports.read(["day,model,output\n", text])
    assert caught.value.param == "exports.1"


class Provider:
    """One of ours, whose name no other test uses."""

    def __init__(self, control):
        self.control, self.name = control, f"provider{next(NUMBERS)}"

    def use(self, *, at=DAY + 3600, model="gpt-4o-mini", upstream="one", outcome="completed", took=5, **more):
        name = f"req_{self.name}_{next(NUMBERS)}"
        usage = UsageRecord(input=200, cached_input=800, output=50) if outcome == "completed" else UsageRecord()
        fields = {"usage": usage, "cost": 60_000, **more}
        where = {"provider": self.name, "upstream_model": model, "upstream": upstream}
        self.control.charge(
            name, "org_r", 0, at=at * 10**9, outcome=outcome, duration_ns=took * 10**9, **where, **fields
        )
        return name

    def compare(self, *texts, status=200, **more):
        wish = {"provider": self.name, "exports": list(texts), **more}
        answer = self.control.admin("POST", "/admin/v1/billing/reconciliations", wish)
        assert answer.status == status, answer.raw
        return answer.json


@pytest.fixture
def provider(running):
    return Provider(running)


def test_what_agrees_has_no_drift(provider):
    for _ in range(3):
        provider.use()
    theirs = completions(input_tokens=3000, input_cached_tokens=2400, output_tokens=150, num_model_requests=3)
    found = provider.compare(page(seconds_bucket(theirs)), page(seconds_bucket(costs(0.00018))))
    assert (found["drifting"], found["first_day"], found["last_day"]) == (0, "2024-11-01", "2024-11-01")
    [row] = found["data"]
    assert (row["model"], row["requests"]) == ("gpt-4o-mini", [])
    assert row["ours"] == row["theirs"]
    assert found["ours"]["cost"] == 180_000


def test_one_request_that_the_provider_does_not_have_is_named(provider):
    provider.use()
    missing = provider.use(usage=UsageRecord(input=7, output=3))
    found = provider.compare(page(seconds_bucket(completions())))
    [row] = found["data"]
    assert row["drift"] == {"requests": -1, "input": -7, "cached_input": 0, "cache_write": 0, "output": -3}
    [suspect] = row["requests"]
    assert (suspect["request_id"], suspect["why"]) == (missing, "it alone is exactly the drift")
    assert suspect["measures"]["output"] == 3


def test_a_model_that_is_not_in_the_export_has_all_its_requests_listed(provider):
    known, other = provider.use(), provider.use(model="gpt-5")
    provider.use(at=DAY + 86400 * 9)  # not covered by the export, so nobody's drift
    found = provider.compare(page(seconds_bucket(completions())))
    assert known not in json.dumps(found)
    [row] = [each for each in found["data"] if each["exceeds"]]
    assert (row["model"], row["drift"]["requests"]) == ("gpt-5", -1)
    assert [each["request_id"] for each in row["requests"]] == [other]


def test_what_the_provider_may_see_otherwise_is_listed_with_its_reason(provider):
    failed = provider.use(outcome="failed", reported=UsageRecord(input=200, output=20))
    guessed = provider.use(estimated=True)
    night = provider.use(at=DAY + 86390, took=60)
    provider.use()
    theirs = completions(input_tokens=9000, output_tokens=999, num_model_requests=9)
    [row] = provider.compare(page(seconds_bucket(theirs)))["data"]
    assert row["ours"]["output"] == 20 + 3 * 50, "what a failed attempt's provider reported, it bills"
    reasons = {each["request_id"]: each["why"] for each in row["requests"]}
    assert reasons == {
        failed: "it ended otherwise: failed",
        guessed: "the provider reported nothing for it, so we counted",
        night: "it ran over midnight",
    }


def test_keys_are_told_apart_when_it_is_said_which_is_which(provider):
    for upstream in ("one", "two"):
        provider.use(upstream=upstream)
    results = [completions(api_key_id="key_1"), completions(api_key_id="key_2", output_tokens=60)]
    together = provider.compare(page(seconds_bucket(*results)))
    assert [row["drift"]["output"] for row in together["data"]] == [10]
    apart = provider.compare(page(seconds_bucket(*results)), keys={"key_1": "one", "key_2": "two"})
    assert [(row["key"], row["drift"]["output"], row["exceeds"]) for row in apart["data"]] == [
        ("one", 0, False),
        ("two", 10, True),
    ]


def test_a_tolerance(provider):
    provider.use()
    theirs = page(seconds_bucket(completions(output_tokens=51)))
    assert provider.compare(theirs)["drifting"] == 1
    assert provider.compare(theirs, tolerance=0.02)["drifting"] == 0


@pytest.mark.parametrize(
    "wish, param",
    [
        ({"exports": []}, "exports"),
        ({"exports": ["day,model,output\n"]}, "exports"),
        ({"exports": ["nonsense"]}, "exports.0"),
        ({"provider": "nobody", "exports": ["day,model,output\n2024-11-01,m,1\n"]}, "provider"),
        ({"tolerance": 2}, "tolerance"),
        ({"exports": ["day,model,output\n2024-11-01,m,1\n2029-11-01,m,1\n"]}, "exports"),
    ],
)
def test_what_cannot_be_compared(provider, wish, param):
    provider.use()
    texts = wish.get("exports", ["day,model,output\n2024-11-01,m,1\n"])
    answer = provider.compare(status=400, **{**wish, "exports": texts})
    assert answer["error"]["param"] == param
