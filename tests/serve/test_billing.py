"""Billing of a real server: what callers are told that it cost is on their receipts, in the ledger, in the costs, and
on the invoice; and docs/billing.md, command by command."""

import csv
import io
import json
import re
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from openai import OpenAI, RateLimitError

from tokenworks import receipts
from tokenworks.journal.shipper import LINGER_SECONDS
from tokenworks.journal.writer import JournalSettings

TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PAGE = (Path(__file__).parents[2] / "docs" / "billing.md").read_text()
CONFIG = """
[models.echo]
engine = "echo"
price = {input = 0.15, cached_input = 0.075, output = 0.60}
[models.timed]
engine = "echo"
options = {rate = 400}
price = {gpu_second = 0.001}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any, serve: Any) -> Any:
    folder = tmp_path_factory.mktemp("billing")
    (folder / "models.toml").write_text(CONFIG)
    with serve(folder / "data", "--config", str(folder / "models.toml")) as server:
        yield server


@pytest.fixture(scope="module")
def told(server: Any, wait_until: Any) -> dict[str, int]:
    """Nano-dollars that callers were told, by request: in headers of plain answers and at the end of streams."""
    costs: dict[str, int] = {}
    with OpenAI(base_url=f"{server.url}/v1", api_key=server.api_key, max_retries=0) as client:
        for number in range(4):
            words = [{"role": "user", "content": "say it " * (10 + number)}]
            if number % 2:
                plain = client.chat.completions.with_raw_response.create(model="echo", messages=words)
                name, usage = plain.headers["x-request-id"], plain.parse().usage
                costs[name] = int(plain.headers["x-tokenworks-cost-nano-usd"])
            else:
                options = {"include_usage": True}
                raw = client.chat.completions.with_raw_response.create(
                    model="echo", messages=words, stream=True, stream_options=options
                )
                name, [usage] = raw.headers["x-request-id"], [chunk.usage for chunk in raw.parse() if chunk.usage]
            assert usage.cost_nano_usd == usage.prompt_tokens * 150 + usage.completion_tokens * 600
            assert costs.setdefault(name, usage.cost_nano_usd) == usage.cost_nano_usd
    for name in costs:
        wait_until(lambda name=name: receipt(server, name)[0] == 200, "the receipt")
    return costs


def receipt(server: Any, name: str, key: str | None = None) -> Any:
    return server.call("GET", f"/v1/receipts/{name}", key=key)


def test_what_a_caller_is_told_is_on_the_receipt_the_costs_and_the_invoice(server: Any, told: dict[str, int]) -> None:
    _, keys = server.call("GET", "/v1/receipts/keys", key="none")
    for name, cost in told.items():
        _, found = receipt(server, name)
        assert receipts.verify(found, keys)
        assert found["charge"]["nano_usd"] == cost > 0
        [attempt] = found["attempts"]
        assert attempt["price"]
        assert [line["usd_per_million"] for line in attempt["lines"]] == ["0.15", "0.6"]
        assert sum(line["amount_nano_usd"] for line in attempt["lines"]) == cost
        assert receipt(server, name, server.admin_key)[1]["attempts"][0]["ledger_transaction"]
    total = sum(told.values())
    _, balance = server.call("GET", "/admin/v1/billing/balance", key=server.admin_key)
    assert balance["charged"]["nano_usd"] == total
    _, draft = server.call("GET", "/admin/v1/billing/invoices/draft", key=server.admin_key)
    assert draft["charged"]["nano_usd"] == total == sum(line["amount_nano_usd"] for line in draft["lines"])
    period = draft["period"]
    with OpenAI(base_url=f"{server.url}/v1", api_key="x", admin_api_key=server.admin_key, max_retries=0) as client:
        page = client.admin.organization.usage.costs(start_time=period["start"], end_time=period["end"], limit=31)
    days = [result.amount for day in page.data for result in day.results]
    assert sum(round(amount.value * 10**9) for amount in days) == total


def test_a_key_for_files_only_reads_receipts_too(server: Any, told: dict[str, int]) -> None:
    wish = {"name": "clerk", "scopes": ["files"]}
    _, made = server.call("POST", "/admin/v1/keys", wish, key=server.admin_key)
    assert receipt(server, next(iter(told)), made["key"])[0] == 200


def test_a_strangers_key_reads_no_receipt(server: Any, told: dict[str, int]) -> None:
    _, made = server.call("POST", "/admin/v1/organizations", {"name": "stranger"}, key=server.admin_key)
    path = f"/v1/organization/projects/{made['project_id']}/service_accounts"
    _, account = server.call("POST", path, {"name": "s"}, key=made["admin_key"])
    for key in (made["admin_key"], account["api_key"]["value"]):
        status, answer = receipt(server, next(iter(told)), key)
        assert (status, answer["error"]["code"]) == (404, "receipt_not_found")
    assert receipt(server, next(iter(told)), "sk-tw-none")[0] == 401


def test_a_prepaid_balance_is_enforced_at_the_gateway(server: Any, wait_until: Any) -> None:
    _, made = server.call("POST", "/admin/v1/organizations", {"name": "prepaid"}, key=server.admin_key)
    path = f"/v1/organization/projects/{made['project_id']}/service_accounts"
    _, account = server.call("POST", path, {"name": "s"}, key=made["admin_key"])
    billing = f"?organization_id={made['id']}"
    server.call("POST", f"/admin/v1/billing/terms{billing}", {"mode": "prepaid"}, key=server.admin_key)
    words = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}

    def ask() -> Any:
        return server.call("POST", "/v1/chat/completions", words, key=account["api_key"]["value"])

    wait_until(lambda: ask()[0] == 429, "the empty balance")
    wish = {"amount_usd": "0.01", "memo": "try it"}
    server.call("POST", f"/admin/v1/billing/grants{billing}", wish, key=server.admin_key)
    wait_until(lambda: ask()[0] == 200, "the grant")


def test_limits_of_the_official_admin_client_hold_and_their_costs_are_read(server: Any, wait_until: Any) -> None:
    with OpenAI(
        base_url=f"{server.url}/v1", api_key="", admin_api_key=server.admin_key, max_retries=0
    ) as administrator:
        organization = administrator.admin.organization
        project = organization.projects.create(name="limited").id
        key = organization.projects.service_accounts.create(project, name="robot").api_key
        assert key is not None
        rate_limits, echo = organization.projects.rate_limits, "rl-echo"
        rate_limits.update_rate_limit(echo, project_id=project, max_requests_per_1_minute=1)
        costs: list[int] = []
        with OpenAI(base_url=f"{server.url}/v1", api_key=key.value, max_retries=0) as caller:

            def ask(words: str = "hello") -> RateLimitError | None:
                try:
                    usage: Any = caller.chat.completions.create(
                        model="echo", messages=[{"role": "user", "content": words}]
                    ).usage
                except RateLimitError as error:
                    return error
                costs.append(usage.cost_nano_usd)
                return None

            def refusal(told: str) -> Any:
                return wait_until(lambda: (said := ask()) and told in str(said) and said, told)

            refused = refusal("model echo: 1 requests per 60 s, 1 in use.")
            assert refused.code == "rate_limit_exceeded"
            assert refused.response.headers["x-ratelimit-limit-requests"] == "1"
            assert 0 < int(refused.response.headers["retry-after"]) <= 60
            no_limit = 2**53 - 1
            rate_limits.update_rate_limit(
                echo, project_id=project, max_requests_per_1_minute=no_limit, max_tokens_per_1_minute=1
            )
            refused = refusal("model echo: 1 tokens per 60 s, 0 in use, ")
            assert refused.response.headers["x-ratelimit-remaining-tokens"] == "1"
            rate_limits.update_rate_limit(echo, project_id=project, max_tokens_per_1_minute=no_limit)
            wait_until(lambda: ask("word " * 900) is None, "no limit")
            organization.projects.spend_limit.update(project, currency="USD", interval="month", threshold_amount=0)
            refused = refusal(f"The budget of project {project} is used up.")
            assert refused.code == "insufficient_quota"
            assert refused.response.headers["x-should-retry"] == "false"
            organization.projects.spend_limit.update(project, currency="USD", interval="month", threshold_amount=1)
            wait_until(lambda: ask() is None, "money")
            assert f"What is left of the budget of project {project} cannot cover" in str(ask("w " * 70_000))

        def booked() -> int:
            buckets = organization.usage.costs(
                start_time=int(time.time()) - 86_400, project_ids=[project], group_by=["api_key_id", "line_item"]
            ).data
            found = [result for bucket in buckets for result in bucket.results]
            assert {(each.api_key_id, each.line_item) for each in found} <= {(key.id, "echo")}
            return sum(each.amount.nano_usd for each in found)

        assert costs
        wait_until(lambda: booked() == sum(costs), "the costs of all answers")
    _, draft = server.call("GET", "/admin/v1/billing/invoices/draft", key=server.admin_key)
    lines = [line for line in draft["lines"] if line["project_id"] == project]
    assert {line["key"] for line in lines} == {"robot: Secret Key"}
    assert sum(line["amount_nano_usd"] for line in lines) == sum(costs)


def test_an_event_of_nobody_reaches_control_through_the_gateway(server: Any) -> None:
    status, answer = server.call("POST", "/webhooks/payments", {}, key="none")
    assert (status, answer["error"]["code"]) == (404, "no_payments")


@pytest.fixture(scope="module")
def run(server: Any, tmp_path_factory: Any) -> Any:
    """`run("billing", ..., code=0)` as the operator."""
    folder = tmp_path_factory.mktemp("commands")
    environment = {"PATH": "/usr/bin:/bin", "NO_COLOR": "1", "TOKENWORKS_URL": server.url}
    environment |= {"TOKENWORKS_DATA_DIR": str(server.data_dir), "HOME": str(folder)}

    def call(*words: str, code: int = 0, **more: str) -> Any:
        command = [str(TOKENWORKS), *words]
        done = subprocess.run(command, cwd=folder, env=environment | more, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    call.folder = folder  # type: ignore[attr-defined]
    return call


def test_the_commands_of_the_page(run: Any, told: dict[str, int]) -> None:
    """In their order, with a request of this server where it says REQUEST."""
    (run.folder / "export.csv").write_text("day,model,requests\n2020-01-01,nothing,0\n")
    commands = re.findall(r"^(tokenworks billing .+)$", PAGE, re.MULTILINE)
    assert len(commands) > 10
    outputs = {}
    for command in commands:
        words, _, file = command.replace("REQUEST", next(iter(told))).partition(" > ")
        done = run(*shlex.split(words)[1:])
        if file:
            (run.folder / file).write_text(done.stdout)
        outputs[command.split()[2]] = done.stdout
    assert "a wrong answer" in run("billing", "transactions", "--json").stdout
    assert "every balance is the sum of its entries" in outputs["check"]
    assert "signed" in outputs["verify"]
    assert (run.folder / "november.pdf").read_bytes().startswith(b"%PDF-")


def test_a_forged_receipt_and_a_tampered_one(run: Any, told: dict[str, int]) -> None:
    found = json.loads(run("billing", "receipt", next(iter(told)), "--json").stdout)
    found["charge"]["nano_usd"] = 1
    (run.folder / "forged.json").write_text(json.dumps(found))
    done = run("billing", "verify", "forged.json", code=1)
    assert "not to be trusted: it was changed after it was signed" in " ".join(done.stderr.split())
    (run.folder / "none.json").write_text("[]")
    assert "is no JSON object" in run("billing", "verify", "none.json", code=2).stderr
    assert "no key set" in run("billing", "verify", "forged.json", "--keys", "none.json", code=2).stderr


def test_a_receipt_with_an_api_key(run: Any, server: Any, told: dict[str, int]) -> None:
    name, cost = next(iter(told.items()))
    shown = run("billing", "receipt", name, TOKENWORKS_API_KEY=server.api_key).stdout
    assert "customer" in shown
    assert f"{cost / 10**9:.9f}".rstrip("0") in shown
    assert "receipt is there about a second" in run("billing", "receipt", "req_none", code=1).stderr


def test_an_invoice_is_saved_and_shown(run: Any, told: dict[str, int]) -> None:
    assert "Draft for" in run("billing", "invoice").stdout
    run("billing", "invoice", "--output", "draft.csv")
    rows = list(csv.DictReader(io.StringIO((run.folder / "draft.csv").read_text())))
    assert {"input", "output", "tax", "total", "due"} <= {row["kind"] for row in rows}
    assert "ends with .pdf" in run("billing", "invoice", "--output", "draft.doc", code=2).stderr
    assert "has not ended" in run("billing", "issue", "2999-01", code=1).stderr
    assert "Nothing was used in 2020-01" in run("billing", "issue", "2020-01").stdout


def test_reconcile_tells_scripts_that_it_differs(run: Any, server: Any, told: dict[str, int]) -> None:
    _, found = receipt(server, next(iter(told)))
    attempt = found["attempts"][0]
    day = subprocess.run(
        ["date", "-u", "-d", f"@{attempt['opened_at']}", "+%F"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (run.folder / "theirs.csv").write_text(f"day,model,requests\n{day},{attempt['upstream_model']},1000\n")
    options = ("theirs.csv", "--provider", attempt["provider"])
    shown = run("billing", "reconcile", *options, code=3).stdout
    assert "requests" in shown
    assert "1 of them differ" in shown
    assert json.loads(run("billing", "reconcile", *options, "--json", code=3).stdout)["drifting"] == 1
    assert run("billing", "reconcile", *options, "--tolerance", "1").stdout
    assert "write THEIRS=OURS" in run("billing", "reconcile", *options, "--provider-key", "x", code=2).stderr


def test_the_same_key_is_done_once_from_the_command_line(run: Any) -> None:
    grant = ("billing", "grant", "1.5", "--memo", "m", "--idempotency-key", "k", "--json")
    first, again = json.loads(run(*grant).stdout), json.loads(run(*grant).stdout)
    assert (first["new"], again["new"], first["sequence"]) == (True, False, again["sequence"])
    assert "must be more than 0" in run("billing", "grant", "0", "--memo", "m", code=1).stderr
    assert "-0.25" in run("billing", "adjust", "--memo", "typo", "--json", "--", "-0.25").stdout


def test_settled_usage_is_visible_within_a_second_after_its_answer(server: Any) -> None:
    """Counted in looks, not in time, and of several the one in the middle: this machine may be busy."""
    assert LINGER_SECONDS + JournalSettings().sync_seconds < 0.5, (
        "what shipping waits for, when it has something to ship"
    )

    def requests() -> int:
        with urlopen(
            Request(f"{server.url}/v1/organization/usage/completions?start_time={since}", headers=admin)
        ) as answer:
            page = json.load(answer)
        return sum(each["num_model_requests"] for bucket in page["data"] for each in bucket["results"])

    admin, since = {"authorization": f"Bearer {server.admin_key}"}, int(time.time()) - 86_400
    looks = []
    for number in range(9):
        before, looked = requests(), 0
        assert server.chat(f"look {number}")[0] == 200
        while requests() == before:
            looked += 1
            assert looked < 1_000, "it never comes"
            time.sleep(LOOK)
        looks.append(looked)
    assert statistics.median(looks) * LOOK <= 1.0, looks


LOOK = 0.05


def customer(server: Any, name: str) -> tuple[str, str]:
    """A new organization's id, and an API key of its project."""
    _, made = server.call("POST", "/admin/v1/organizations", {"name": name}, key=server.admin_key)
    path = f"/v1/organization/projects/{made['project_id']}/service_accounts"
    _, account = server.call("POST", path, {"name": "s"}, key=made["admin_key"])
    return made["id"], account["api_key"]["value"]


def test_time_of_an_engine_is_on_the_receipt_and_the_invoice(server: Any, wait_until: Any) -> None:
    organization, key = customer(server, "timed")
    body = {"model": "timed", "messages": [{"role": "user", "content": "say " * 100}], "max_tokens": 80}
    with OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        answer = client.chat.completions.with_raw_response.create(**body)
    name, cost = answer.headers["x-request-id"], int(answer.headers["x-tokenworks-cost-nano-usd"])
    assert cost == 80 * 1_000_000 // 400, "80 tokens at 400 a second are 200 ms, at 1000 nano-dollars each"
    found = wait_until(lambda: (told := receipt(server, name, key)[1]).get("final") and told, "the receipt")
    [attempt] = found["attempts"]
    assert attempt["usage"]["gpu_ms"] == 200
    assert sum(line["amount_nano_usd"] for line in attempt["lines"]) == cost
    assert "gpu_ms" in [line["kind"] for line in attempt["lines"]]
    path = f"/admin/v1/billing/invoices/draft?organization_id={organization}"
    _, draft = server.call("GET", path, key=server.admin_key)
    [line] = [line for line in draft["lines"] if line["kind"] == "gpu_ms"]
    assert (line["quantity"], line["amount_nano_usd"], draft["charged"]["nano_usd"]) == (200, cost, cost)


def test_a_strict_limit_counts_a_prompt_that_a_token_a_byte_would_refuse(server: Any, wait_until: Any) -> None:
    organization, key = customer(server, "strict")
    limit = {"scope": "organization", "subject": organization, "kind": "input_tokens", "limit": 200, "strict": True}
    server.call("POST", "/admin/v1/limits", {**limit, "period": "month"}, key=server.admin_key)

    def ask(text: str) -> int:
        body = {"model": "echo", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
        return server.call("POST", "/v1/chat/completions", body, key=key)[0]

    wait_until(lambda: ask("word " * 300) == 429, "the limit")
    assert ask("incomprehensibilities " * 60) == 200, "1,300 bytes, some 60 tokens"
