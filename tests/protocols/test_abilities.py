"""`isinstance` of what a codec can do beyond the rest: remembered by class, and right for each."""

import pytest

from tokenworks.protocols import base
from tokenworks.protocols import codec as find_codec

ABILITIES = [each for each in vars(base).values() if isinstance(each, base.Ability)]
CODECS = ["openai_chat", "openai_completions", "openai_embeddings", "rerank", "anthropic_messages", "tgi", "groq_chat"]


@pytest.mark.parametrize("ability", ABILITIES, ids=lambda ability: ability.__name__)
def test_what_a_codec_can_is_what_it_has(ability: type) -> None:
    members = [*ability.__annotations__, *(name for name in vars(ability) if not name.startswith("_"))]
    assert members
    for name in CODECS:
        codec = find_codec(name)
        for _ in range(2):
            assert isinstance(codec, ability) == all(hasattr(codec, member) for member in members), name


def test_it_is_no_matter_of_who_was_asked_first() -> None:
    assert isinstance(find_codec("openai_chat"), base.Padded)
    assert not isinstance(find_codec("rerank"), base.Padded)
    assert not isinstance(object(), base.Padded)
