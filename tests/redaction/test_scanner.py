"""What is found does not depend on how the text was cut, and nothing of it leaves before it is known to be nothing."""

import json
import string
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tokenworks.redaction.editing import Editor, JsonEditor, TextEditor, edited
from tokenworks.redaction.entities import ENTITIES, LONGEST, Rule, rules
from tokenworks.redaction.patterns import Pattern
from tokenworks.redaction.scanner import Rules

ALL = Rules(rules(ENTITIES, ("US", "DE"), ()))
PRIVATE = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEow" + "Ab+/" * 60 + "\n" + "c3" * 20 + "==\n-----END RSA PRIVATE KEY-----"
)
SECRETS = {
    "EMAIL": ["alice@example.com", "o'neil.b+tag@mail.example.co.uk"],
    "PHONE": ["+44 20 7946 0958", "(415) 555-2671", "415-555-2671", "030 901820"],
    "CREDIT_CARD": ["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"],
    "IBAN": ["DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432"],
    "US_SSN": ["123-45-6789"],
    "IP_ADDRESS": ["192.168.17.4", "2001:db8:0:1::7", "fe80::1:2"],
    "API_KEY": [
        "sk-tw-AbCdEf0123456789xyzw",
        "sk-ant-api03-" + "aB3_" * 20,
        "sk-proj-" + "x9Y" * 15,
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_" + "aB3" * 12,
    ],
    "JWT": ["eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"],
    "PRIVATE_KEY": [PRIVATE],
}
EVERY = [(entity, secret) for entity, secrets in SECRETS.items() for secret in secrets]
prose = st.text(st.sampled_from(string.ascii_letters + " .,:;!?\n\t-_@/()[]{}\"'\\0123456789äß日🎉"), max_size=30)


def by_name(entity: str, text: str) -> str:
    return f"<{entity}>"


def whole(rules: Rules, text: str, *, json_text: bool = False) -> str:
    return edited(JsonEditor(rules, by_name) if json_text else TextEditor(rules, by_name), text)


@st.composite
def planted(draw: st.DrawFn) -> tuple[str, list[str]]:
    secrets = draw(st.lists(st.sampled_from(EVERY), max_size=4))
    parts = [draw(prose)]
    for _, secret in secrets:
        parts += [" ", secret, " ; ", draw(prose)]
    return "".join(parts), [secret for _, secret in secrets]


def cut(text: str, places: list[int]) -> list[str]:
    at = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(at)]


places = st.lists(st.integers(0, 2000), max_size=40)


def streamed(editor: Editor, chunks: list[str]) -> list[str]:
    """What is out after each chunk, and at last."""
    out, all_of_it = "", []
    for chunk in chunks:
        out += editor.feed(chunk)
        all_of_it.append(out)
    return [*all_of_it, out + editor.close()]


@pytest.mark.parametrize(("entity", "secret"), EVERY)
def test_finds(entity: str, secret: str) -> None:
    assert whole(ALL, f"it is {secret}, see") == f"it is <{entity}>, see"
    assert whole(ALL, secret) == f"<{entity}>"


@pytest.mark.parametrize(
    "text",
    [
        "call me at 12:30 on 2024-11-05, room 415, order 1234567",
        "card 4111 1111 1111 1112 and 1234567812345678",
        "000-12-3456 and 987-65-4321 are no numbers of persons",
        "version 1.2.3 of 999.1.1.1 and std::vector::size",
        "GB82WEST12345698765433 is mistyped",
        "write to alice@example or @alice",
        "task-list ask-me risk-free sk-8 and <task-notification>",
    ],
)
def test_leaves_alone_what_only_looks_like_it(text: str) -> None:
    assert whole(ALL, text) == text


@given(planted(), places)
def test_the_cuts_of_a_text_change_nothing(text: tuple[str, list[str]], at: list[int]) -> None:
    said, secrets = text
    expected = whole(ALL, said)
    outs = streamed(TextEditor(ALL, by_name), cut(said, at))
    assert outs[-1] == expected
    assert all(expected.startswith(out) for out in outs)
    assert all(secret not in expected for secret in secrets)


@given(st.sampled_from(EVERY), places)
def test_no_beginning_of_a_secret_leaves(secret: tuple[str, str], at: list[int]) -> None:
    before = "Hello there: "
    for out in streamed(TextEditor(ALL, by_name), cut(before + secret[1], at)):
        assert before.startswith(out) or out == f"{before}<{secret[0]}>"


def test_nothing_else_is_held_back() -> None:
    """Of an ordinary sentence: the word that may still become something."""
    editor, fed, out = TextEditor(ALL, by_name), "", ""
    for word in ["The", " quick", " brown", " fox", " jumps.", " Over", " 12", " dogs", ".\n"]:
        fed, out = fed + word, out + editor.feed(word)
        assert len(fed) - len(out) <= len(word)
    assert out == fed


own = st.sampled_from(
    [
        r"a+b",
        r"(?i)secret: .*",
        r"^x+$",
        r"(foo|foobar)(bar)?",
        r"ab{2,4}?c",
        r"\bEMP-\d{6}\b",
        r"[^ ]+!",
        r"(?s)<<.*?>>",
        r"a(b|bc)(cd)?",
    ]
)


@given(
    st.lists(own, min_size=1, max_size=3, unique=True), st.text("abcdfoxsert: EMP-123456!<>\näX", max_size=60), places
)
@example([r"a+b"], "a" * (LONGEST + 50) + "b", list(range(0, 5000, 7)))
@example([r"a+b", r"(?i)secret: .*"], "Secret: " + "a" * (2 * LONGEST) + "b", [3, 5000, 9000])
@example([r"(?s)<<.*?>>"], "<<" + "ä" * LONGEST + ">> <<a>>", [5, 4096, 4099])
def test_patterns_of_ones_own(patterns: list[str], text: str, at: list[int]) -> None:
    made = Rules([Rule(f"OWN{number}", Pattern(each)) for number, each in enumerate(patterns)])
    assert streamed(TextEditor(made, by_name), cut(text, at))[-1] == whole(made, text)


@given(
    st.recursive(
        st.sampled_from([secret for _, secret in EVERY])
        | prose
        | st.integers(-99_999, 99_999)
        | st.booleans()
        | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(prose, inner, max_size=3),
        max_leaves=6,
    ),
    st.booleans(),
    places,
)
def test_json_stays_json_and_what_is_escaped_is_found(value: object, ascii_only: bool, at: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    expected = whole(ALL, text, json_text=True)
    assert streamed(JsonEditor(ALL, by_name), cut(text, at))[-1] == expected
    assert _strings(json.loads(expected, object_pairs_hook=_members)) == [whole(ALL, each) for each in _strings(value)]


def _members(pairs: list[tuple[str, object]]) -> list[object]:
    """Two names may have become the same."""
    return [part for pair in pairs for part in pair]


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [found for item in value.items() for part in item for found in _strings(part)]
    return [found for item in value for found in _strings(item)] if isinstance(value, list) else []


def test_json_with_every_letter_escaped_and_a_number() -> None:
    escaped = "".join(f"\\u{ord(char):04x}" for char in "alice@example.com")
    text = f'{{"to": "{escaped}", "card": 4111111111111111, "n": 1.5e3, "\\ud83c\\udf89": "caf\\u00e9\\/"}}'
    assert whole(ALL, text, json_text=True) == (
        '{"to": "<EMAIL>", "card": "<CREDIT_CARD>", "n": 1.5e3, "\\ud83c\\udf89": "caf\\u00e9\\/"}'
    )


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a(?=b)", "looks around"),
        (r"(a)\1", "refers back"),
        ("(", "is no regular expression"),
        ("a*", "matches the empty text"),
        ("a(?:b{0,900}){0,900}", "linear time"),
        ("x" * 1001, "longer than 1000"),
        ("(?:.{1,900}y|.{2,900}z){1}" * 8, "repeats too much"),
    ],
)
def test_patterns_that_cannot_be_run_are_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Pattern(pattern)


def test_a_pattern_that_would_take_others_forever_is_linear() -> None:
    """`re` needs 2**40 steps for the first; the other is longer than a match may be."""
    made = Rules([Rule("X", Pattern(r"(a+)+c")), Rule("Y", Pattern(r"(a|aa)+b"))])
    text = "a" * 40_000
    assert whole(made, text) == text
    assert streamed(TextEditor(made, by_name), cut(text, list(range(0, 40_000, 400))))[-1] == text
