"""How a model writes tool calls and reasoning, told from its chat template: a template that shows the model its own
earlier calls has the markers in it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tokenworks.worker.chat.bare_calls import BareCall
from tokenworks.worker.chat.body import Body
from tokenworks.worker.chat.json_calls import JSONCalls
from tokenworks.worker.chat.named_calls import ARGS, CALL_ID, NamedCall
from tokenworks.worker.chat.tagged_calls import FUNCTION, MarkedCalls, Schemas, TaggedCall

Bodies = Callable[[Schemas], Body]


@dataclass(frozen=True, slots=True)
class CallFormat:
    """`openers` begin a call; each has the body that reads it. `keep` are further markers inside."""

    name: str
    openers: dict[str, Bodies]
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Thoughts:
    """The markers around reasoning."""

    open: str
    close: str


@dataclass(frozen=True, slots=True)
class Format:
    """`native`: the template itself tells the model of tools in this way."""

    calls: CallFormat
    thoughts: Thoughts | None = None
    native: bool = True

    @property
    def markers(self) -> Collection[str]:
        """Special tokens that the engine must show as text: without them the reader sees no call and no reasoning."""
        thoughts = (self.thoughts.open, self.thoughts.close) if self.thoughts else ()
        return (*self.calls.openers, *self.calls.keep, *thoughts)


TOOL_CALL = CallFormat(
    "tool_call",
    {
        "<tool_call>": lambda schemas: MarkedCalls(schemas, "</tool_call>"),
        FUNCTION: TaggedCall,
    },
    ("</tool_call>",),
)
"""Hermes, Qwen (JSON, and tags), SmolLM2 and 3 (also a list)."""

PYTHON_TAG = CallFormat(
    "python_tag",
    {"<|python_tag|>": lambda schemas: JSONCalls(known=schemas), FUNCTION: TaggedCall},
)
"""Llama 3: mostly without any marker, which the reader knows for all."""

BRACKETS = CallFormat("brackets", {"[TOOL_CALLS]": lambda _: NamedCall()}, (CALL_ID, ARGS))
"""Mistral, the older list and the newer names."""

BARE = CallFormat(
    "bare",
    {"<|tool_call>": lambda _: BareCall('<|"|>', ("<tool_call|>",))},
    ("<tool_call|>", '<|"|>'),
)
"""Gemma 4."""

ESCAPED = CallFormat(
    "escaped",
    {"<start_function_call>": lambda _: BareCall("<escape>", ("<end_function_call>",))},
    ("<end_function_call>", "<escape>"),
)
"""FunctionGemma."""

_BY_MARKER = (
    ("<|tool_call>", BARE),
    ("<start_function_call>", ESCAPED),
    ("[TOOL_CALLS]", BRACKETS),
    ("<tool_call>", TOOL_CALL),
    ("<|python_tag|>", PYTHON_TAG),
    ("<|start_header_id|>", PYTHON_TAG),
)
_NOT_READ = ("<arg_key>", "<invoke name=", "recipient")
"""Other ways of writing calls, between markers of which some look like ours."""
_THOUGHTS = (
    Thoughts("<|channel>thought", "<channel|>"),
    Thoughts("<think>", "</think>"),
    Thoughts("[THINK]", "[/THINK]"),
    Thoughts("<thinking>", "</thinking>"),
    Thoughts("<reasoning>", "</reasoning>"),
    Thoughts("<seed:think>", "</seed:think>"),
    Thoughts("<|START_THINKING|>", "<|END_THINKING|>"),
)


def of_template(source: str) -> Format:
    """A template that knows no tools, or writes calls in a way that is not read here, gets them described as TOOL_CALL
    has it; see template.py."""
    known = next((calls for marker, calls in _BY_MARKER if marker in source), None)
    if any(marker in source for marker in _NOT_READ):
        known = None
    # The closing marker alone is enough: a template that only cuts earlier reasoning out shows it.
    thoughts = next((found for found in _THOUGHTS if found.close in source), None)
    return Format(known or TOOL_CALL, thoughts, known is not None)
