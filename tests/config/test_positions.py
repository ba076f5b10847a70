from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.config import ConfigError
from tokenworks.config.positions import Path, key_lines
from tokenworks.config.reader import _toml  # the same reader as the product's

TEXT = '''\
# [not.a.table]
top = 1
a.b."c.d" = 2    # dotted, quoted

[ table . "with space" ]
basic = "x = 1 # no comment ] }"
literal = 'C:\\'
multi = """
[no.table]
quoted = \\""" ""\\"
"""
after = \'\'\'
]]\'\'\'
edge = """ends with two quotes"""""
list = [
  "one", # ]
  {inner = 1, deep.er = [1, [2,
     3]]},
]
date = 1979-05-27 07:32:00Z

[[array]]
k = 1
[array.sub]
s = 1
[[array]]
k = 2
[[array.nested]]
n = {}
"\\u00e9" = 1
'''

LINES = {
    ("top",): 2,
    ("a", "b", "c.d"): 3,
    ("table",): 5,
    ("table", "with space"): 5,
    ("table", "with space", "basic"): 6,
    ("table", "with space", "literal"): 7,
    ("table", "with space", "multi"): 8,
    ("table", "with space", "after"): 12,
    ("table", "with space", "edge"): 14,
    ("table", "with space", "list"): 15,
    ("table", "with space", "list", 0): 16,
    ("table", "with space", "list", 1): 17,
    ("table", "with space", "list", 1, "inner"): 17,
    ("table", "with space", "list", 1, "deep", "er", 1, 1): 18,
    ("table", "with space", "date"): 20,
    ("array", 0): 22,
    ("array", 0, "k"): 23,
    ("array", 0, "sub", "s"): 25,
    ("array", 1): 26,
    ("array", 1, "k"): 27,
    ("array", 1, "nested", 0): 28,
    ("array", 1, "nested", 0, "é"): 30,
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_kind_of_key_has_its_line(newline: str) -> None:
    lines = key_lines(TEXT.replace("\n", newline))
    assert {path: lines.get(path) for path in LINES} == LINES


def paths(value: Any, path: Path = ()) -> set[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {path}.union(*(paths(item, (*path, key)) for key, item in items))


def test_exactly_the_keys_of_the_document_are_found() -> None:
    assert key_lines(TEXT).keys() >= paths(_toml(TEXT, "TEXT"))


bare = st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True)
quoted = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=6)
texts = quoted.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
key_text = bare | texts
scalars = (
    texts | st.integers().map(str) | st.sampled_from(["true", "1.5", "inf", "1979-05-27", "'''\n]'''", '"""\\""""'])
)
value_text = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + ", # ]\n".join(items) + "]"),
        st.dictionaries(bare, inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(key_text, st.dictionaries(key_text, value_text, max_size=4)), max_size=4))
def test_any_document_finds_its_keys(tables: list[tuple[str, dict[str, str]]]) -> None:
    text = ""
    for index, (name, pairs) in enumerate(tables):
        text += f"[t{index}.{name}] # [no]\n" + "".join(f"{key} = {value}\n" for key, value in pairs.items())
    try:
        document = _toml(text, "text")
    except ConfigError:
        return  # two spellings of one key
    assert key_lines(text).keys() >= paths(document)


@given(st.text(st.sampled_from("[]{}\"'=.,#\\\n ab1"), max_size=60))
def test_any_short_text_that_is_toml(text: str) -> None:
    try:
        document = _toml(text, "text")
    except ConfigError:
        return
    assert key_lines(text).keys() >= paths(document)
