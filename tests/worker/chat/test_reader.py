"""Text, reasoning and tool calls in what models say, the same however it is cut."""

import json
import string
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenworks.core.events import ReasoningDelta, ToolCallDelta
from tokenworks.protocols.worker.types import Tool
from tokenworks.worker.chat import formats
from tokenworks.worker.chat.formats import Format, Thoughts, of_template
from tokenworks.worker.chat.reader import Reader

TOOLS = [
    Tool(
        "weather",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}},
        },
    ),
    Tool("now"),
]
THINK = Thoughts("<think>", "</think>")
MARKED = Format(formats.TOOL_CALL, THINK)
LLAMA = Format(formats.PYTHON_TAG)
BRACKETS = Format(formats.BRACKETS, Thoughts("[THINK]", "[/THINK]"))
GEMMA = Format(formats.BARE, Thoughts("<|channel>thought", "<channel|>"))
ESCAPED = Format(formats.ESCAPED)

Said = list[tuple[str, str, str | None]]
"""(kind or name of the function, text or arguments, id of the call)"""


def said(
    format: Format, pieces: Iterable[str], tools: list[Tool] = TOOLS, *, thinking: bool = False, parallel: bool = True
) -> Said:
    reader = Reader(format, tools, thinking=thinking, parallel=parallel, ids=lambda: "new")
    deltas = [delta for piece in pieces for delta in reader.feed(piece)] + reader.close()
    found: Said = []
    last: object = None
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            assert (delta.name is not None) == (delta.call != last), "the name comes with a call's first part only"
            if delta.name is not None:
                assert delta.id is not None
                found.append((delta.name, "", delta.id))
            name, arguments, given = found[-1]
            found[-1] = (name, arguments + delta.arguments, given)
            last = delta.call
            continue
        kind = "reasoning" if isinstance(delta, ReasoningDelta) else "text"
        assert delta.text, "no empty deltas"
        if last == kind:
            found[-1] = (kind, found[-1][1] + delta.text, None)
        else:
            found.append((kind, delta.text, None))
        last = kind
    assert reader.calls == sum(given is not None for _, _, given in found)
    return found


def call(name: str, arguments: str, id: str = "new") -> tuple[str, str, str]:
    return (name, arguments, id)


def text(said: str) -> tuple[str, str, None]:
    return ("text", said, None)


def thought(said: str) -> tuple[str, str, None]:
    return ("reasoning", said, None)


CASES: list[tuple[Format, str, Said]] = [
    (MARKED, "Hello <b>, 1 < 2 <tool", [text("Hello <b>, 1 < 2 <tool")]),
    (
        MARKED,
        'Let me see.\n<tool_call>\n{"name": "weather", "arguments": {"city": "</tool_call> \\"é",  "days":1e0}}\n'
        "</tool_call>",
        [text("Let me see."), call("weather", '{"city": "</tool_call> \\"é",  "days":1e0}')],
    ),
    (
        MARKED,
        '<think>\nfirst <tool_call> \n\n</think>\n\n<tool_call>{"arguments": {"a": 1}, "name": "now"}</tool_call>\n'
        '<tool_call>\n{"name": "now", "arguments": "{\\"a\\": 1}"}\n</tool_call>\nDone.',
        [thought("first <tool_call>"), call("now", '{"a": 1}'), call("now", '{"a": 1}'), text("Done.")],
    ),
    (
        MARKED,
        '<tool_call>[{"name": "now", "arguments": {}}, {"name": "weather", "arguments": {"city": "]"}}]</tool_call>',
        [call("now", "{}"), call("weather", '{"city": "]"}')],
    ),
    (
        MARKED,
        '<tool_call>\n<function=weather>\n<parameter=city>\nSan\n "F"\n</parameter>\n<parameter=days>\n3\n'
        "</parameter>\n<parameter=tags>\n[1, 'x']\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n"
        "<function=now>\n</function>\n</tool_call>",
        [call("weather", '{"city": "San\\n \\"F\\"", "days": 3, "tags": "[1, \'x\']"}'), call("now", "{}")],
    ),
    # What small models get wrong.
    (MARKED, '{"name": "weather", "arguments": {"city": "x"}}}', [call("weather", '{"city": "x"}')]),
    (MARKED, '```json\n{"name": "now", "arguments": {}}\n```', [call("now", "{}")]),
    (MARKED, '<tool_call>{"name": "now", "arguments": {"a": 1}</tool_call>', [call("now", '{"a": 1}')]),
    (
        MARKED,
        '<tool_call>{"name": "now", "arguments": {"a": 1}}\n\nThat is all.',
        [call("now", '{"a": 1}'), text("That is all.")],
    ),
    (MARKED, '<tool_call>{"name": "now", "arguments": null}}}\n</tool_call>', [call("now", "{}")]),
    (MARKED, '<tool_call>{"name": "now"}', [call("now", "{}")]),
    (MARKED, '<tool_call>{"name": "never", "arguments": {}}</tool_call>', [call("never", "{}")]),
    (MARKED, '<tool_call>{"name": "now", "arguments": {\'a\': True}}</tool_call>', [call("now", "{'a': True}")]),
    (MARKED, "A <tool_call>not json</tool_call> b", [text("A <tool_call>not json</tool_call> b")]),
    # What only looks like a call.
    (MARKED, '{"name": "Ada", "arguments": {"x": 1}} ', [text('{"name": "Ada", "arguments": {"x": 1}} ')]),
    (MARKED, '{"city": "x", "name": "now"}', [text('{"city": "x", "name": "now"}')]),
    (MARKED, ' {"name": "now"}', [text(' {"name": "now"}')]),
    (MARKED, 'It is {"name": "now", "arguments": {}}', [text('It is {"name": "now", "arguments": {}}')]),
    (MARKED, "```python\nprint(1)\n```\n", [text("```python\nprint(1)\n```\n")]),
    (MARKED, "I use <think> to think.", [text("I use <think> to think.")]),
    # Cut by a limit.
    (MARKED, '<tool_call>{"name": "now", "arguments": {"a": "b', [call("now", '{"a": "b')]),
    (MARKED, '<tool_call>{"name": "now', [text('<tool_call>{"name": "now')]),
    (
        MARKED,
        "<tool_call>\n<function=weather>\n<parameter=city>\nx\n</parameter>\n<param",
        [call("weather", '{"city": "x"')],
    ),
    (MARKED, "<think>\nstill ", [thought("still")]),
    (
        LLAMA,
        '<|python_tag|>{"type": "function", "name": "now", "parameters": {"x": null}}; '
        '{"name": "weather", "parameters": {"city": "y"}}',
        [call("now", '{"x": null}'), call("weather", '{"city": "y"}')],
    ),
    (LLAMA, '{"type": "function", "function": {"name": "now", "parameters": {"x": 1}}}', [call("now", '{"x": 1}')]),
    (LLAMA, '{"function": "now", "parameters": {"x": 1}}', [call("now", '{"x": 1}')]),
    (LLAMA, '<function=weather>{"city": "z"}</function>', [call("weather", '{"city": "z"}')]),
    (LLAMA, "<|python_tag|>print(1)", [text("<|python_tag|>print(1)")]),
    (
        BRACKETS,
        '[THINK]hm[/THINK][TOOL_CALLS] [{"name": "now", "arguments": {"x": "a]"}, "id": "abcdefghi"}, '
        '{"name": "weather", "arguments": {}}]',
        [thought("hm"), call("now", '{"x": "a]"}', "new"), call("weather", "{}")],
    ),
    (
        BRACKETS,
        'So:[TOOL_CALLS]now[CALL_ID]123456789[ARGS]{"x": [1]}[TOOL_CALLS]weather[ARGS]{"city": ""}',
        [text("So:"), call("now", '{"x": [1]}', "123456789"), call("weather", '{"city": ""}')],
    ),
    (BRACKETS, '[TOOL_CALLS]now{"x": 1}', [call("now", '{"x": 1}')]),
    (BRACKETS, "[TOOL_CALLS] and so on [", [text("[TOOL_CALLS] and so on [")]),
    (
        GEMMA,
        '<|channel>thought\nhm<channel|><|tool_call>call:weather{city:<|"|>a "b" }<|"|>,days:3,'
        'more:{x:[1,-2.5,true,null],s:<|"|><|"|>}}<tool_call|><|tool_call>call:now{}<tool_call|>',
        [
            thought("hm"),
            call("weather", '{"city": "a \\"b\\" }", "days": 3, "more": {"x": [1, -2.5, true, null], "s": ""}}'),
            call("now", "{}"),
        ],
    ),
    (GEMMA, '<|tool_call>call:now(x: "y")<tool_call|>', [text('<|tool_call>call:now(x: "y")<tool_call|>')]),
    (
        ESCAPED,
        "<start_function_call>call:weather{city:<escape>New York, {NY}<escape>}<end_function_call>",
        [call("weather", '{"city": "New York, {NY}"}')],
    ),
]


@pytest.mark.parametrize(("format", "answer", "expected"), CASES)
def test_every_family_however_it_is_cut(format: Format, answer: str, expected: Said) -> None:
    assert said(format, [answer]) == expected
    assert said(format, answer) == expected, "character by character"
    for at in range(len(answer)):
        assert said(format, [answer[:at], answer[at:]]) == expected, answer[:at]


def cut(answer: str, lengths: list[int]) -> list[str]:
    """Pieces of these lengths, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(answer):
        length = lengths[turn % len(lengths)]
        pieces.append(answer[at : at + length])
        at, turn = at + length, turn + 1
    return pieces


@given(st.sampled_from(CASES), st.lists(st.integers(1, 9), min_size=1, max_size=12))
@settings(max_examples=200, deadline=None)
def test_random_pieces(case: tuple[Format, str, Said], lengths: list[int]) -> None:
    family, answer, expected = case
    assert said(family, cut(answer, lengths)) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["weather", "now"])


def written(arguments: object, indent: int | None, ascii: bool) -> str:
    return json.dumps(arguments, indent=indent, ensure_ascii=ascii)


@given(
    st.lists(st.tuples(NAMES, st.dictionaries(st.text(max_size=4), JSON, max_size=3)), min_size=1, max_size=3),
    st.none() | st.integers(0, 2),
    st.booleans(),
    st.lists(st.integers(1, 20), min_size=1, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_arguments_are_told_to_the_byte(
    calls: list[tuple[str, dict[str, object]]], indent: int | None, ascii: bool, lengths: list[int]
) -> None:
    texts = [(name, written(arguments, indent, ascii)) for name, arguments in calls]
    marked = [f'<tool_call>\n{{"name": "{name}", "arguments": {text}}}\n</tool_call>' for name, text in texts]
    listed = [f'{{"arguments": {text}, "name": "{name}"}}' for name, text in texts]
    bare = [f'{{"name": "{name}", "parameters": {text}}}' for name, text in texts]
    named = [f"[TOOL_CALLS]{name}[ARGS]{text}" for name, text in texts]
    answers = [
        (MARKED, "\n".join(marked)),
        (MARKED, f"<tool_call>[{', '.join(listed)}]</tool_call>"),
        (LLAMA, "; ".join(bare)),
        (BRACKETS, "".join(named)),
    ]
    for family, answer in answers:
        assert said(family, cut(answer, lengths)) == [call(name, text) for name, text in texts]


def bare(value: object, quote: str) -> str:
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{bare(item, quote)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(bare(item, quote) for item in value) + "]"
    return json.dumps(value)


PLAIN = st.text(string.printable, max_size=8).filter(lambda text: text not in ('<|"|>', "<escape>"))
"""What stands around a text cannot be in one."""
BARE_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_1", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc_1", min_size=1, max_size=4), BARE_VALUES, max_size=4), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_calls_that_are_not_json_become_the_same_json(arguments: dict[str, object], length: int) -> None:
    for family, opener, quote, closer in (
        (GEMMA, "<|tool_call>", '<|"|>', "<tool_call|>"),
        (ESCAPED, "<start_function_call>", "<escape>", "<end_function_call>"),
    ):
        answer = f"{opener}call:weather{bare(arguments, quote)}{closer}"
        [(name, text, _)] = said(family, [answer[at : at + length] for at in range(0, len(answer), length)])
        assert (name, json.loads(text)) == ("weather", arguments)


@given(st.sampled_from([MARKED, LLAMA, BRACKETS, GEMMA, ESCAPED]), st.data())
@settings(max_examples=300, deadline=None)
def test_no_answer_breaks_a_reader_and_none_is_lost(format: Format, data: st.DataObject) -> None:
    """Whatever a model says, the pieces decide nothing; and what is neither call nor reasoning is told."""
    bits = [*format.markers, *'{}[]":, \n`<>=', "name", "arguments", '{"name": "now", "arguments": {', "call:now{", "x"]
    pieces = data.draw(st.lists(st.sampled_from(bits), max_size=14))
    whole = said(format, ["".join(pieces)])
    assert said(format, pieces) == whole
    assert said(format, "".join(pieces)) == whole
    if all(kind == "text" for kind, _, _ in whole):
        assert "".join(text for _, text, _ in whole) == "".join(pieces) or format.thoughts is not None


def test_reasoning_that_the_prompt_began() -> None:
    assert said(MARKED, ["\nhm", "\n</thi", "nk>\n\nyes"], thinking=True) == [thought("hm"), text("yes")]
    assert said(MARKED, ["hm"], thinking=True) == [thought("hm")]
    assert said(MARKED, ["</think>yes"], thinking=True) == [text("yes")]


def test_without_tools_nothing_is_a_call() -> None:
    answer = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    assert said(MARKED, answer, tools=[]) == [text(answer)]


def test_one_call_where_only_one_is_wanted() -> None:
    one = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    reader = Reader(MARKED, TOOLS, parallel=False)
    reader.feed(one)
    assert reader.done
    assert said(MARKED, [one, one, "text"], parallel=False) == [call("now", "{}")]


def test_arguments_come_while_they_are_written() -> None:
    reader = Reader(MARKED, TOOLS)
    deltas = reader.feed('<tool_call>{"name": "weather", "arguments": {"city": "Zür')
    assert [(delta.name, delta.arguments) for delta in deltas if isinstance(delta, ToolCallDelta)] == [
        ("weather", '{"city": "Zür')
    ]


@pytest.mark.parametrize(
    ("source", "calls", "thoughts"),
    [
        ("<tool_call> {{ x.split('</think>') }}", formats.TOOL_CALL, THINK),
        ("<|start_header_id|> <|python_tag|>", formats.PYTHON_TAG, None),
        ("[TOOL_CALLS] [ARGS] [THINK] [/THINK]", formats.BRACKETS, Thoughts("[THINK]", "[/THINK]")),
        ("<|tool_call> <|channel>thought <channel|>", formats.BARE, Thoughts("<|channel>thought", "<channel|>")),
        ("<start_function_call>", formats.ESCAPED, None),
    ],
)
def test_the_template_tells_the_format(source: str, calls: formats.CallFormat, thoughts: Thoughts | None) -> None:
    found = of_template(source)
    assert found == Format(calls, thoughts)
    assert set(calls.openers) <= set(found.markers)


@pytest.mark.parametrize("source", ["<|im_start|>", "<tool_call>{{ name }}<arg_key>"])
def test_a_format_that_is_not_known_is_told_to_be_ours(source: str) -> None:
    assert of_template(source) == Format(formats.TOOL_CALL, None, native=False)
