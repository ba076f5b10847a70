"""`[guardrails.NAME]`: what the page says, and every mistake with its line and remedy."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from tokenworks.config import ConfigError, Configuration, parse
from tokenworks.config.guardrails import CHECKS
from tokenworks.config.records import GuardrailConfig
from tokenworks.redaction.entities import ENTITIES

PAGE = (Path(__file__).parents[2] / "docs" / "guardrails.md").read_text()
MODEL = '[models.m]\nengine = "echo"\n'


def read(text: str) -> Configuration:
    return parse(text, file="t.toml", protocols={"openai_chat"}, engines={"echo"})


def test_the_page_names_every_key_and_every_entity() -> None:
    assert {field.name for field in fields(GuardrailConfig)} == {"name", *CHECKS}
    keys = PAGE.partition("| key | value | default |")[2].partition("\n\n")[0]
    assert set(CHECKS) <= set(re.findall(r"`([a-z_]+)`", keys))
    entities = PAGE.partition("| entity |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z_]+)` \|", entities, re.MULTILINE)) == set(ENTITIES)


def test_their_order_is_that_of_the_file() -> None:
    text = '[guardrails.z]\nkind = "redactor"\nall = true\n[guardrails.a]\nkind = "redactor"\nkeys = ["key_1"]\n'
    found = read(text).guardrails
    assert list(found) == ["z", "a"]
    assert found["a"] == GuardrailConfig("a", "redactor", keys=("key_1",), entities=ENTITIES)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f'{MODEL}guardrails = ["pi"]\n[guardrails.pii]\nkind = "redactor"\nall = true',
            "t.toml:3: models.m.guardrails names 'pi', which is unknown; nearest is 'pii'; valid: pii",
        ),
        (f'{MODEL}guardrails = ["pii"]', "names 'pii', which is unknown; valid: none"),
        (
            '[guardrails.pii]\nkind = "redactr"\nall = true',
            "t.toml:2: guardrails.pii.kind 'redactr' is unknown; nearest is 'redactor'; valid: http, redactor",
        ),
        ("[guardrails.pii]\nall = true", "t.toml:1: guardrails.pii has no 'kind'; add kind = 'http' or 'redactor'"),
        ('[guardrails.pii]\nkind = "redactor"', "guardrails.pii applies to nobody; add all = true, projects ="),
        (
            '[guardrails.pii]\nkind = "redactor"\nall = true\nentities = ["emial"]',
            "guardrails.pii.entities 'emial' is unknown; nearest is 'email'",
        ),
        (
            "[guardrails.pii]\nkind = 'redactor'\nall = true\npatterns = {x = '(?=a)b'}",
            "t.toml:4: guardrails.pii.patterns has 'x', which looks around, which cannot be done in linear time",
        ),
        ("[guardrails.pii]\nkind = 'redactor'\nall = true\npatterns = {x = 'a*'}", "matches the empty text"),
        ("[guardrails.pii]\nkind = 'redactor'\nall = true\npatterns = {email = 'a'}", "cannot name a pattern"),
        ("[guardrails.pii]\nkind = 'redactor'\nall = true\nentities = []", "nothing would be found"),
        ("[guardrails.pii]\nkind = 'redactor'\nall = true\nphone_regions = ['USA']", "'USA' is no country"),
        ("[guardrails.pii]\nkind = 'redactor'\nall = true\nrestore = true\nphase = 'after'", "needs action 'redact'"),
        ("[guardrails.pii]\nkind = 'redactor'\nall = true\nurl = 'http://x'", "is for guardrails of kind 'http'"),
        ("[guardrails.h]\nkind = 'http'\nall = true", "has no 'url'; add the address"),
        ("[guardrails.h]\nkind = 'http'\nall = true\nurl = 'http://a:b@x'", "must not hold credentials"),
        ("[guardrails.h]\nkind = 'http'\nall = true\nurl = 'http://x'\ntimeout = 100", "at most 60"),
        ("[guardrails.h]\nkind = 'http'\nall = true\nurl = 'http://x'\nentities = ['email']", "of kind 'redactor'"),
    ],
)
def test_mistakes_are_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert said in str(caught.value)
