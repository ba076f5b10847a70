"""The price book through the admin API: what is in force at gateways, for whom, since when; and the past stands."""

import time

import pytest

CONFIG = """
[providers.acme]
protocol = "openai_chat"
base_url = "http://127.0.0.1:9100/v1"
costs    = {"small" = {input = 0.1, output = 0.2}}

[models.assistant]
targets = ["acme/big", "acme/small"]
price   = {input = 0.15, output = 0.60}

[models.later]
targets = ["acme/huge"]
"""
PATH = "/admin/v1/prices"
RATES = {"input": "2", "output": 10, "cached_input": 0.2}


@pytest.fixture(scope="module")
def priced(control_process, tmp_path_factory):
    """`later` got its price before it was offered. Each test has a subject of its own."""
    config = tmp_path_factory.mktemp("prices") / "t.toml"
    with control_process("--local-model", "smollm2-135m") as process:
        assert put(process, subject="later").status == 201
        process.stop()
        config.write_text(CONFIG)
        process.options += ["--config", str(config)]
        yield process.start()


def put(process, **wish):
    return process.admin("POST", PATH, {"rates": RATES, **wish})


def listed(process, **query):
    return process.admin("GET", PATH + "?" + "&".join(f"{name}={value}" for name, value in query.items())).json["data"]


def price_of(process, model):
    models = process.admin("GET", "/admin/v1/models").json["data"]
    return next(each["price_usd"] for each in models if each["id"] == model)


def test_the_files_prices_are_entries_and_changed_only_there(priced):
    (mine,) = listed(priced, subject="assistant")
    assert (mine["source"], mine["state"], mine["until"]) == ("config", "in_force", None)
    assert mine["rates"] == {"input": "0.15", "output": "0.6"}
    (cost,) = listed(priced, side="cost")
    assert (cost["subject"], cost["rates"]["output"]) == ("acme/small", "0.2")
    for refused in (put(priced, subject="assistant"), put(priced, subject="acme/small", side="cost")):
        assert (refused.status, refused.error["param"]) == (400, "subject")
        assert "is priced in the configuration file; change it there" in refused.error["message"]
    assert priced.admin("DELETE", f"{PATH}/{mine['id']}").status == 400


def test_a_new_version_takes_over_and_is_in_force_at_once(priced):
    assert price_of(priced, "smollm2-135m") == {"input": "0", "output": "0"}
    made = put(priced, subject="smollm2-135m").json
    assert price_of(priced, "smollm2-135m") == {"input": "2", "cached_input": "0.2", "output": "10"}
    assert put(priced, subject="smollm2-135m").json["id"] == made["id"]  # the same says nothing new
    ended = priced.admin("DELETE", f"{PATH}/{made['id']}")
    assert ended.status == 200
    assert price_of(priced, "smollm2-135m") == {"input": "0", "output": "0"}
    (past,) = listed(priced, subject="smollm2-135m", history="true")
    assert (past["state"], past["rates"], past["from"]) == ("past", made["rates"], made["from"])
    assert priced.admin("DELETE", f"{PATH}/{made['id']}").status == 400


def test_a_price_for_a_while(priced):
    now = int(time.time())
    put(priced, subject="offer")
    put(priced, subject="offer", rates={"input": 1, "output": 1}, **{"from": now + 100, "until": now + 200})
    versions = listed(priced, subject="offer")
    assert [each["rates"]["input"] for each in versions] == ["2", "1", "2"]
    assert versions[2]["source"] == f"resumes {versions[0]['id']}"
    clash = put(priced, subject="offer", **{"from": now + 50})
    assert (clash.status, clash.error["param"]) == (400, "from")
    assert f"overlaps with {versions[1]['id']}" in clash.error["message"]
    late = put(priced, subject="offer", **{"from": now - 100})
    assert "lies in the past, and what was charged stands" in late.error["message"]


def test_a_model_that_others_answer_is_never_without_a_price(priced):
    (mine,) = listed(priced, subject="later")
    refused = priced.admin("DELETE", f"{PATH}/{mine['id']}")
    assert (refused.status, refused.error["param"]) == (400, "until")
    assert "would have no price from now on; set the price that follows first" in refused.error["message"]


def test_an_organization_and_its_project_pay_their_own(priced):
    (project,) = {key["project_id"] for key in priced.admin("GET", "/admin/v1/keys").json["data"]}
    organization = priced.admin("GET", "/admin/v1/organizations").json["data"][0]["id"]
    own = put(priced, subject="assistant", organization_id=organization, rates={"input": 1, "output": 1}).json
    put(priced, subject="assistant", project_id=project, rates={"input": 0.5, "output": 0.5})
    owners = [(each["organization_id"], each["project_id"]) for each in listed(priced, subject="assistant")]
    assert owners == [(None, None), (organization, None), (organization, project)]
    assert priced.admin("DELETE", f"{PATH}/{own['id']}").status == 200
    unknown = put(priced, subject="assistant", organization_id="org_none")
    assert (unknown.status, unknown.error["param"]) == (400, "organization_id")


def test_conditions(priced):
    when = [
        {"tier": "batch", "factors": 0.5},
        {"above": 272000, "factors": {"input": "2", "output": "3/2"}},
        {"tier": "batch", "above": 272000, "rates": {"input": 3}},
        {"region": "eu", "factors": "1.1"},
    ]
    made = put(priced, subject="conditions", when=when).json
    assert made["when"][0]["factors"]["output"] == "1/2"
    assert made["when"][2]["factors"] == {"input": "3/2"}
    assert made["when"][3] == {"tier": None, "above": None, "region": "eu", "factors": made["when"][3]["factors"]}


@pytest.mark.parametrize(
    ("wish", "param", "message"),
    [
        ({"rates": {}}, "rates", "states no rate"),
        ({"rates": {"input": 1}}, "rates", "no rate for output; write 0"),
        ({"rates": {"inputs": 1, "output": 1}}, "rates", "there is no kind 'inputs'; the kinds are input, output"),
        ({"rates": {"input": -1, "output": 1}}, "rates.input", "cannot be negative"),
        ({"rates": {"input": "1e-12", "output": 1}}, "rates.input", "finer than one nano-dollar"),
        ({"rates": {"input": "much", "output": 1}}, "rates.input", "not an amount"),
        ({"rates": {"input": 1e30, "output": 1}}, "rates.input", "out of range"),
        ({"when": [{"factors": 2}]}, "when[0]", "no condition"),
        ({"when": [{"tier": "flex"}]}, "when[0]", "either factors or rates"),
        ({"when": [{"tier": "flex", "factors": "half"}]}, "when[0]", "is no factor"),
        ({"when": [{"tier": "flex", "factors": 2}, {"tier": "flex", "factors": 3}]}, "when[1]", "same conditions"),
        ({"side": "cost", "subject": "big"}, "subject", "provider/model"),
        ({"from": 2**34}, "from", "less than"),
    ],
)
def test_refused_with_the_field_and_the_remedy(running, wish, param, message):
    refused = put(running, **{"subject": "smollm2-135m", **wish})
    assert (refused.status, refused.error["param"]) == (400, param), refused.raw
    assert message in refused.error["message"]


def test_check_tells_what_to_look_at(priced):
    found = {(each["code"], each["subject"]) for each in priced.admin("GET", f"{PATH}/check").json["data"]}
    assert found == {("no_cost", "acme/big"), ("no_cost", "acme/huge")}
    put(priced, side="cost", subject="acme/huge", rates={"input": 3, "output": 10})
    below = next(each for each in priced.admin("GET", f"{PATH}/check").json["data"] if each["code"] == "below_cost")
    assert below["message"] == "later is sold below cost: input, cached_input"


def test_gpu_seconds_are_sold_only_where_an_engine_of_ours_tells_them(priced):
    rates = {"input": 1, "output": 1, "gpu_second": 0.001}
    assert put(priced, subject="smollm2-135m", rates=rates).status == 201
    assert put(priced, side="cost", subject="local/smollm2-135m", rates=rates).status == 201
    for wish in ({"subject": "later"}, {"side": "cost", "subject": "acme/huge"}):
        refused = put(priced, rates=rates, **wish)
        assert (refused.status, refused.error["param"]) == (400, "rates")
        assert "which only engines of ours tell" in refused.error["message"]
    codes = {each["code"] for each in priced.admin("GET", f"{PATH}/check").json["data"]}
    assert "not_counted" not in codes
    put(priced, subject="smollm2-135m", rates={"input": 1, "output": 1})


def test_import_gives_costs_to_the_targets_that_the_file_knows(priced):
    document = {
        "acme/big": {"mode": "chat", "input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7, "odd_cost": 3},
        "huge": {"litellm_provider": "acme", "mode": "chat", "input_cost_per_token": 1e-6},
        "unrelated": {"mode": "chat", "input_cost_per_token": 1e-6, "output_cost_per_token": 1e-6},
    }
    asked = {"document": document, "dry_run": True, "source": "file prices.json", "names": {"acme/big": "acme/big"}}
    rehearsed = priced.admin("POST", f"{PATH}/import", asked).json
    assert [each["subject"] for each in rehearsed["set"]] == ["acme/big"]
    assert listed(priced, side="cost", subject="acme/big") == []
    done = priced.admin("POST", f"{PATH}/import", {**asked, "dry_run": False}).json
    assert done["not_understood"] == {"acme/big": ["odd_cost"]}
    assert done["set"][0]["source"] == "file prices.json"
    assert priced.admin("POST", f"{PATH}/import", {**asked, "dry_run": False}).json["unchanged"] == ["acme/big"]
    priced_in_file = priced.admin(
        "POST", f"{PATH}/import", {"document": document, "names": {"unrelated": "acme/small"}}
    )
    assert "configuration file" in priced_in_file.error["message"]
    everything = priced.admin("POST", f"{PATH}/import", {"document": {**document, "acme/small": document["unrelated"]}})
    assert "configuration file" in everything.error["message"]


def test_a_malformed_price_file_changes_nothing(priced):
    """LiteLLM's incident of January 2026: a malformed live map was silently taken for no prices at all."""
    before = listed(priced, history="true")
    good = {"mode": "chat", "input_cost_per_token": 1e-7, "output_cost_per_token": 4e-7}
    for broken in ({"acme/huge": {**good, "input_cost_per_token": "1e-"}}, {"acme/huge": []}, [], "x", {}):
        document = {"acme/big": good, **broken} if broken and isinstance(broken, dict) else broken
        refused = priced.admin("POST", f"{PATH}/import", {"document": document})
        assert (refused.status, refused.error["param"]) == (400, "document"), refused.raw
    assert listed(priced, history="true") == before
