"""The policy's words about the cache of answers, from the file to the gateways' snapshot."""

import re
from pathlib import Path

import pytest

from tokenworks.config import reader
from tokenworks.config.catalog import known_providers
from tokenworks.config.problems import ConfigError
from tokenworks.control.offers import offers
from tokenworks.protocols import PROTOCOLS
from tokenworks.snapshot.records import PolicyRecord

PAGE = (Path(__file__).parents[2] / "docs" / "caching.md").read_text()


def parse(text: str) -> reader.Configuration:
    return reader.parse(text, file="x", protocols=PROTOCOLS, engines=None, known_providers=known_providers(PROTOCOLS))


def test_the_example_of_the_page_reaches_the_gateways() -> None:
    example, similar = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    offer = offers(parse(example), (), {})["assistant"]
    assert offer.policy == PolicyRecord(cache=3600, cache_max=86_400, cache_price=0.1)
    head = example[: example.index("[models.assistant.policy]")]
    offer = offers(parse(head + similar), (), {})["assistant"]
    assert offer.policy == PolicyRecord(cache=3600, semantic_model="embedder", semantic_threshold=0.95)


@pytest.mark.parametrize(("word", "remedy"), [("cache = -1", "seconds"), ("cache_price = 2", "a share from 0 to 1")])
def test_what_makes_no_sense_is_told(word: str, remedy: str) -> None:
    text = f'[models.m]\ntargets = ["openai/m"]\nprice = {{ input = 0, output = 0 }}\n[models.m.policy]\n{word}\n'
    with pytest.raises(ConfigError, match=remedy) as told:
        parse(text)
    assert told.value.problems[0].line == 5
