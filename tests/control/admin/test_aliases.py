"""Virtual models over the admin API: every change a version, published, on record; a dry run changes nothing."""

import tempfile
import time
from itertools import count
from pathlib import Path

import pytest
from tests.control.conftest import ControlProcess

from tokenworks.journal import framing

CONFIG = """
[providers.upstream-a]
protocol = "openai_chat"
base_url = "http://127.0.0.1:9/v1"
region = "eu"
[models.fast]
targets = ["upstream-a/f"]
price = {input = 1, output = 2}
[models.smart]
targets = ["upstream-a/s"]
price = {input = 10, output = 20}
[aliases.filed]
to = "fast"
canary = {to = "smart", percent = 5}
price = {input = 3, output = 3}
"""
PATH = "/admin/v1/aliases"
NUMBERS = count(1)


@pytest.fixture(scope="module")
def process():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="tw-") as name:
        (Path(name) / "file.toml").write_text(CONFIG)
        process = ControlProcess(Path(name), "--config", f"{name}/file.toml").start()
        yield process
        assert process.stop() == 0


@pytest.fixture
def chat():
    """A name of the test's own: versions are counted for good."""
    return f"chat-{next(NUMBERS)}"


def put(process, name, definition, **more):
    return process.admin("POST", f"{PATH}/{name}", {"definition": definition, **more})


def test_versions_are_made_published_rolled_back_and_on_record(process, chat):
    made = put(process, chat, {"to": "fast"}, note="first")
    assert (made.status, made.json["version"], made.json["note"]) == (200, 1, "first"), made.raw
    assert made.json["author"].startswith("bootstrap (")
    weights = {"to": {"fast": 9, "smart": 1}}
    assert put(process, chat, weights).json["version"] == 2
    assert put(process, chat, weights).json["version"] == 2, "what is in force already is no change"
    assert process.published().aliases[chat].definition == weights
    assert process.admin("POST", f"{PATH}/{chat}/rollback", {"version": 1}).json["version"] == 3
    published = process.published().aliases[chat]
    assert (published.version, published.definition) == (3, {"to": "fast"})
    assert process.admin("DELETE", f"{PATH}/{chat}").json["definition"] is None
    assert chat not in process.published().aliases
    assert process.admin("GET", f"{PATH}/{chat}").error["code"] == "alias_not_found"
    assert process.admin("DELETE", f"{PATH}/{chat}").status == 404
    history = process.admin("GET", f"{PATH}/{chat}/versions").json["data"]
    told = [(each["version"], each["definition"], each["note"]) for each in history]
    assert told == [
        (4, None, ""),
        (3, {"to": "fast"}, "back to version 1"),
        (2, weights, ""),
        (1, {"to": "fast"}, "first"),
    ]
    assert process.admin("GET", f"{PATH}/{chat}/versions?limit=2&after=4").json["data"] == history[1:3]
    assert process.admin("POST", f"{PATH}/{chat}/rollback", {"version": 4}).status == 400
    assert process.admin("POST", f"{PATH}/{chat}/rollback", {"version": 9}).status == 404
    back = process.admin("POST", f"{PATH}/{chat}/rollback", {"version": 2, "note": "again"}).json
    assert (back["version"], back["definition"]) == (5, weights)
    assert process.published().aliases[chat].created == history[-1]["created_at"]
    entries = process.admin("GET", f"/v1/organization/audit_logs?resource_ids[]={chat}").json["data"]
    logged = [(entry["type"], entry["after"]["version"]) for entry in entries]
    kinds = ["alias.updated", "alias.deleted", "alias.updated", "alias.updated", "alias.created"]
    assert logged == list(zip(kinds, range(5, 0, -1), strict=True))
    assert process.admin("GET", f"{PATH}/{chat}/versions/3").json["definition"] == {"to": "fast"}


def test_names_with_slashes_are_names(process, chat):
    assert put(process, "some/model-4", {"to": "fast"}).status == 200
    assert process.admin("GET", f"{PATH}/some/model-4/versions").json["data"][0]["name"] == "some/model-4"
    assert process.admin("POST", f"{PATH}/some/model-4/try", {}).json["sample"]["model"] == "fast"


def test_what_could_not_be_in_force_is_refused_with_the_reason(process, chat):
    inner = f"{chat}-inner"
    put(process, chat, {"to": "fast"})
    put(process, inner, {"to": chat})
    before = process.published().aliases
    for definition, param, said in (
        ({"to": "slow"}, "definition", f"{chat!r} names 'slow', which is neither a model nor an alias; there are: "),
        ({"to": chat}, "definition", f"the way {chat} -> {chat} leads to itself"),
        ({"to": {"fast": 1, inner: 1}}, "definition", f"{chat} -> {inner} -> {chat} leads to itself"),
        ({"to": "fast", "shadow": {"to": "gone", "percent": 1}}, "definition", f"{chat!r} names 'gone'"),
        ({"to": "fast", "canary": {"to": "smart", "percent": 200}}, "definition.canary.percent", "a percentage"),
        ({"to": "fast", "price": {"input": 1}}, "definition.price", "is unknown"),
    ):
        refused = put(process, chat, definition)
        assert (refused.status, refused.error["param"]) == (400, param)
        assert said in refused.error["message"]
    assert process.published().aliases == before
    assert f"named by {inner}" in process.admin("DELETE", f"{PATH}/{chat}").error["message"]
    assert "name of a model" in put(process, "fast", {"to": "smart"}).error["message"]


def test_two_hands_do_not_overwrite_each_other(process, chat):
    assert put(process, chat, {"to": "fast"}, expected_version=0).status == 200
    late = put(process, chat, {"to": "smart"}, expected_version=0)
    assert (late.status, late.error["code"]) == (400, "alias_changed")
    assert put(process, chat, {"to": "smart"}, expected_version=1).json["version"] == 2


def test_the_file_makes_the_first_version_and_its_price(process):
    filed = process.published().aliases["filed"]
    assert (filed.version, filed.definition) == (1, {"to": "fast", "canary": {"to": "smart", "percent": 5}})
    assert filed.prices[0].rates == {"input": 3_000_000_000, "output": 3_000_000_000}
    assert process.admin("GET", f"{PATH}/filed/versions/1").json["author"] == "the configuration file"


def test_a_file_that_leads_in_a_circle_with_what_is_stored_is_refused_at_start(control, short_dir):
    file = short_dir / "file.toml"
    file.write_text(CONFIG)
    process = control("--config", str(file)).start()
    put(process, "other", {"to": "filed"})
    process.stop()
    file.write_text(CONFIG.replace('to = "fast"', 'to = "other"'))
    code, told = process.run()
    assert code == 2
    assert "[aliases]: the way filed -> other -> filed leads to itself" in told


def journal(process, make, chat, rows):
    """`rows`: (model, seed) of requests that named version 1 of `chat`."""
    body = bytearray()
    for number, (model, seed) in enumerate(rows):
        opened = make.opened(number, at=process.now_ns, key_id=f"key_{number % 3}")
        opened = type(opened)(**{name: getattr(opened, name) for name in opened.__struct_fields__} | {
            "model": model, "alias": chat, "alias_version": 1, "alias_seed": seed})  # fmt: skip
        framing.append(body, opened)
        framing.append(body, make.settled(number, at=process.now_ns))
    assert process.internal("POST", "/internal/v1/journal/gw_1?first=0", bytes(body)).status == 200


def test_a_dry_run_tells_what_a_request_and_what_the_last_ones_would_do(process, make, chat):
    process.now_ns = time.time_ns()
    put(process, chat, {"to": "fast"})
    seeds = [(number * 2**63 // 400) for number in range(400)]
    journal(process, make, chat, [("fast", seed) for seed in seeds])
    before = process.published()
    wish = {
        "definition": {
            "to": "fast",
            "canary": {"to": "smart", "percent": 25},
            "rules": [{"name": "gold", "when": {"metadata": {"tier": "gold"}}, "to": "smart"}],
        },
        "request": {"model": chat, "messages": [{"role": "user", "content": "Hi"}], "metadata": {"tier": "gold"}},
        "recent": 1_000,
    }
    told = process.admin("POST", f"{PATH}/{chat}/try", wish).json
    assert (told["current_version"], told["version"]) == (1, None)
    assert (told["sample"]["model"], told["sample"]["steps"][0]["rule"]) == ("smart", "gold")
    assert (told["sample"]["refused"], told["sample_now"]["model"]) == (None, "fast")
    assert float(told["sample"]["price_usd"]) == pytest.approx(10 * float(told["sample_now"]["price_usd"]))
    assert told["shares"] == {"smart": 1.0}
    recent = told["recent"]
    assert (recent["requests"], recent["current"]["requests"]) == (400, {"fast": 400})
    assert recent["moves"] == [{"from": "fast", "to": "smart", "requests": recent["moved"]}]
    assert 60 < recent["moved"] < 140
    assert recent["guessed"] == 400, "nobody knows their metadata any more"
    assert float(recent["proposed"]["price_usd"]) > float(recent["current"]["price_usd"]) > 0
    del wish["definition"]["rules"], wish["request"]
    plain = process.admin("POST", f"{PATH}/{chat}/try", wish).json
    assert plain["recent"]["guessed"] == 0
    assert plain["recent"]["moved"] == recent["moved"]
    assert 0.22 < plain["shares"]["smart"] < 0.28
    wider = {**wish, "definition": {"to": "fast", "canary": {"to": "smart", "percent": 50}}}
    assert process.admin("POST", f"{PATH}/{chat}/try", wider).json["recent"]["moved"] > recent["moved"]
    assert process.published() == before, "nothing has changed"
    assert process.admin("GET", f"{PATH}/{chat}").json["version"] == 1


def test_a_dry_run_tells_what_would_be_refused(process, chat):
    put(process, chat, {"to": "fast"})
    refused = process.admin("POST", f"{PATH}/{chat}/try", {"definition": {"to": "gone"}})
    assert (refused.status, refused.error["code"]) == (400, "alias_unsound")
    owner = process.admin("POST", "/v1/organization/projects", {"name": "p"}).json["id"]
    key = process.admin("POST", "/admin/v1/keys", {"project_id": owner, "name": "k", "models": ["fast"]}).json
    told = process.admin("POST", f"{PATH}/{chat}/try", {"key_id": key["id"]}).json
    assert told["sample"]["refused"] == f"the key may not use {chat}"
    assert process.admin("POST", f"{PATH}/{chat}/try", {"protocol": "telepathy", "request": {}}).status == 400
    assert process.admin("POST", f"{PATH}/{chat}/try", {"request": {"model": chat}}).status == 400
    assert process.admin("POST", f"{PATH}/nobody/try", {}).status == 404
    new = process.admin(
        "POST", f"{PATH}/{chat}-new/try", {"definition": {"to": {"fast": 1, chat: 1}}, "recent": 10}
    ).json
    assert (new["current_version"], new["sample_now"], new["recent"]["current"]) == (None, None, None)
