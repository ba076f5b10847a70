"""Guardrails of the configuration file: sealed and told to gateways, listed to those whose requests they look at."""

import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from tokenworks.protocols.webhooks import sign
from tokenworks.snapshot.sealing import guardrail, read_cluster_key, unseal

SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
PAGE = (Path(__file__).parents[3] / "docs" / "guardrails.md").read_text()
CONFIG = PAGE.partition("```toml\n")[2].partition("```")[0]
COMMAND, _, SHOWN = PAGE.partition("$ tokenworks ")[2].partition("```")[0].partition("\n")
TOKENWORKS = Path(sys.executable).with_name("tokenworks")
PATH = "/v1/organization/guardrails"


@pytest.fixture
def process(control, short_dir):
    (short_dir / "file.toml").write_text(CONFIG)
    return lambda secret: control("--config", str(short_dir / "file.toml"), environment={"MODERATION_SECRET": secret})


def test_the_pages_example_told_to_gateways_and_listed(process):
    process = process(SECRET).start()
    pii, staff, hook = process.published().guardrails_of("key_1", "proj_123", "assistant")
    assert (hook.name, hook.position, hook.models, hook.timeout) == ("moderation", 2, ("assistant",), 0.5)
    assert SECRET.encode() not in hook.secret
    opened = unseal(read_cluster_key(process.data_dir / "cluster.key"), guardrail("moderation"), hook.secret)
    assert sign([opened], "m1", 1, b"") == sign([SECRET], "m1", 1, b"")
    assert (pii.everybody, pii.restore, staff.patterns) == (True, True, (("employee", r"\bEMP-[0-9]{6}\b"),))

    listed = process.admin("GET", PATH).json["data"]
    assert [each["name"] for each in listed] == ["pii", "moderation"]  # the other one is nobody's here
    assert listed[1] == {
        "object": "organization.guardrail",
        "name": "moderation",
        "kind": "http",
        "phase": "both",
        "action": None,
        "on_failure": "closed",
        "entities": [],
        "patterns": [],
        "restore": False,
        "all": False,
        "models": ["assistant"],
        "projects": [],
        "keys": [],
    }
    assert [each["name"] for each in process.admin("GET", f"{PATH}?model=other").json["data"]] == ["pii"]
    assert process.admin("GET", f"{PATH}?project_id=proj_123").status == 404
    assert process.admin("GET", f"{PATH}?key_id=key_elsewhere").status == 404

    words = [TOKENWORKS, *COMMAND.split(), "--url", process.address, "--key", process.bootstrap["admin_key"]]
    shown = subprocess.run(words, capture_output=True, text=True, timeout=60, env=os.environ | {"COLUMNS": "200"})
    assert shown.returncode == 0, shown.stderr
    assert [line.split() for line in shown.stdout.splitlines()] == [line.split() for line in SHOWN.splitlines()]


def test_a_secret_that_cannot_sign_is_told(process):
    code, said = process("whsec_c2hvcnQ=").run()
    assert code == 2
    assert "[guardrails.moderation] secret: a webhook secret has 24 to 64 bytes" in said
