"""Grammars that an answer is held to, in each way that hosts of this protocol are asked for one."""

import msgspec

from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Grammar
from tokenworks.protocols.openai_chat import types as wire
from tokenworks.protocols.validation import decode, present

_KIND = msgspec.json.Decoder(wire.Tagged)
_FORMAT = msgspec.json.Decoder(wire.GrammarFormats)
FORMATS = ("regex", "grammar")
"""Of `response_format`."""


def asked_grammar(wired: wire.ChatRequest) -> Grammar | None:
    """InvalidRequest when there are two."""
    outputs = wired.structured_outputs
    found = [
        *_format(wired),
        *_each("guided_", wired.guided_regex, wired.guided_choice, wired.guided_grammar),
        *(_each("structured_outputs.", outputs.regex, outputs.choice, outputs.grammar) if outputs else ()),
    ]
    if len(found) > 1:
        raise InvalidRequest(f"Give either '{found[0].param}' or '{found[1].param}', not both.", param=found[1].param)
    return found[0] if found else None


def alternatives(texts: list[str]) -> str:
    """A Lark grammar of exactly these."""
    return "start: " + " | ".join(msgspec.json.encode(text).decode() for text in texts)


def _format(wired: wire.ChatRequest) -> list[Grammar]:
    raw = wired.response_format
    if not present(raw) or decode(_KIND, raw, "response_format").type not in FORMATS:
        return []
    given = decode(_FORMAT, raw, "response_format")
    if isinstance(given, wire.GrammarFormat):
        return [Grammar(given.grammar, "response_format")]
    pattern = given.pattern if given.pattern is not None else given.regex
    if pattern is None:
        raise InvalidRequest("'response_format' of type regex needs a 'pattern'.", param="response_format")
    return [Grammar(pattern, "response_format", regex=True)]


def _each(prefix: str, regex: str | None, choice: list[str] | None, grammar: str | None) -> list[Grammar]:
    found = []
    if regex is not None:
        found.append(Grammar(regex, f"{prefix}regex", regex=True))
    if choice is not None:
        if not choice:
            raise InvalidRequest(f"'{prefix}choice' holds no choice.", param=f"{prefix}choice")
        found.append(Grammar(alternatives(choice), f"{prefix}choice"))
    if grammar is not None:
        found.append(Grammar(grammar, f"{prefix}grammar"))
    return found
