"""What a choice may say: a JSON schema, a regular expression or a grammar, as masks over the vocabulary."""

from collections.abc import Sequence
from typing import Any

import llguidance
import msgspec
import numpy as np
import numpy.typing as npt
from llguidance.gbnf_to_lark import any_to_lark

from tokenworks.core.errors import InvalidRequest
from tokenworks.worker.engines.llama.model import Model

_ANY_JSON: dict[str, Any] = {"type": "object"}


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Objects of which the schema does not say whether they may have other members have none: a small model would go on
    inventing them. Left alone where schemas are combined, since there each would forbid what the others name."""
    combined = b'"allOf"' in msgspec.json.encode(schema)
    found: dict[str, Any] = schema if combined else _closed(schema)
    return found


def _closed(part: Any) -> Any:
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    found: dict[str, Any] = {}
    for name, value in part.items():
        if name in _MAPS and isinstance(value, dict):
            found[name] = {each: _closed(inner) for each, inner in value.items()}
        else:
            found[name] = value if name in _VALUES else _closed(value)
    if isinstance(part.get("properties"), dict) and part.get("type", "object") == "object" and not part.keys() & _OPEN:
        found["additionalProperties"] = False
    return found


_VALUES = frozenset({"enum", "const", "default", "examples", "required"})
"""Members of a schema that hold no schemas."""
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Members that hold schemas by names of their own."""
_OPEN = frozenset(
    {"additionalProperties", "patternProperties", "unevaluatedProperties", "anyOf", "oneOf", "$ref", "if"}
)


class _Vocabulary:
    """What llguidance wants to know of one."""

    def __init__(self, model: Model) -> None:
        self.eos_token_id = model.eos
        self.bos_token_id = model.bos if model.bos >= 0 else None
        self.tokens = model.pieces
        self.special_token_ids = sorted(model.special | model.ends)
        self._model = model

    def __call__(self, text: bytes) -> list[int]:
        return self._model.tokenize(text.decode("utf-8", "replace"), special=False)


class Grammars:
    """For one model: its vocabulary is indexed once, which takes a moment."""

    def __init__(self, model: Model) -> None:
        ends = sorted(model.ends) or [model.eos]
        wrapper = llguidance.TokenizerWrapper(_Vocabulary(model))
        self._tokenizer = llguidance.LLTokenizer(wrapper, n_vocab=model.tokens, eos_token=ends)
        self._width = model.tokens

    def json(self, schema: dict[str, Any] | None) -> "Constraint":
        """Of a JSON schema; None: any object. InvalidRequest says what of it is not supported."""
        try:
            text = msgspec.json.encode(_ANY_JSON if schema is None else closed(schema)).decode()
            grammar = llguidance.LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_flexible": False})
        except ValueError as error:
            raise InvalidRequest(f"The JSON schema cannot be used: {error}", param="response_format") from error
        return self._constraint(grammar, "The JSON schema cannot be used", "response_format")

    def arguments(self, schema: dict[str, Any]) -> "Constraint":
        """Of a function, from right after the colon on, where models like a space."""
        text = msgspec.json.encode({**closed(schema or _ANY_JSON), "x-guidance": {"whitespace_flexible": False}})
        lark = f"%llguidance {{}}\nstart: /[ \\n]?/ arguments\narguments: %json {text.decode()}"
        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        return self._constraint(grammar, "The schema of a strict tool cannot be used", "tools")

    def regex(self, pattern: str) -> "Constraint":
        return self._constraint(
            llguidance.LLMatcher.grammar_from_regex(pattern), "The pattern cannot be used", "grammar"
        )

    def grammar(self, text: str) -> "Constraint":
        """In the notation of llama.cpp, told by its `root ::=`, or of Lark."""
        try:
            lark = any_to_lark(text)
        except Exception as error:  # the converter fails in many ways on what is not a grammar
            raise InvalidRequest(f"The grammar cannot be used: {error}", param="grammar") from error
        return self._constraint(llguidance.LLMatcher.grammar_from_lark(lark), "The grammar cannot be used", "grammar")

    def _constraint(self, grammar: str, complaint: str, param: str) -> "Constraint":
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            reason = str(matcher.get_error()).partition("\n")[0]
            raise InvalidRequest(f"{complaint}: {reason}", param=param)
        return Constraint(matcher, self._width)


class Constraint:
    """The state of one choice."""

    def __init__(self, matcher: Any, width: int) -> None:
        self._matcher = matcher
        self._width = width
        self._mask = np.zeros((width + 31) // 32, np.int32)

    def copy(self) -> "Constraint":
        """Of the same state, for another choice."""
        return Constraint(self._matcher.deep_copy(), self._width)

    def allowed(self) -> npt.NDArray[np.bool_]:
        """Tokens that may come now. ValueError when the grammar became too complex to go on."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if self._matcher.is_error():
            raise ValueError(str(self._matcher.get_error()).partition("\n")[0])
        return np.unpackbits(self._mask.view(np.uint8), count=self._width, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> None:
        """ValueError for one that is not allowed."""
        if not self._matcher.consume_token(token):
            raise ValueError(str(self._matcher.get_error()).partition("\n")[0])

    def accepts(self, token: int) -> bool:
        """Whether it was allowed, and is accepted."""
        return bool(self._matcher.try_consume_tokens([token]))

    def forced(self) -> Sequence[int]:
        """The only tokens that can come next, if there is but one way on."""
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    @property
    def done(self) -> bool:
        """Nothing more can come."""
        return bool(self._matcher.is_stopped())
