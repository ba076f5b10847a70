"""Tokens of echo: nothing is lost on the way to ids and back, and ids do not depend on the process."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.core.errors import InvalidRequest
from tokenworks.worker.engines.echo.words import Vocabulary, split


@given(st.text())
def test_the_words_are_the_text(text: str) -> None:
    assert "".join(split(text)) == text


@given(st.text())
def test_ids_lead_back_to_the_text(text: str) -> None:
    vocabulary = Vocabulary()
    ids = [vocabulary.id(word) for word in split(text)]
    assert "".join(map(vocabulary.word, ids)) == text


def test_a_token_is_a_word_with_the_space_before_it() -> None:
    assert split("one two\n three ") == ["one", " two", "\n three", " "]


def test_ids_are_the_same_everywhere() -> None:
    assert Vocabulary().id("hello") == Vocabulary().id("hello") < 2**48


def test_an_id_never_given_out_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="not a token"):
        Vocabulary().word(7)


def test_the_memory_is_bounded() -> None:
    vocabulary = Vocabulary(size=2)
    first = vocabulary.id("a")
    vocabulary.id("b")
    vocabulary.id("c")
    with pytest.raises(InvalidRequest):
        vocabulary.word(first)
