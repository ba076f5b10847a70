"""Where chat templates run. They come with weights from anywhere, so they get no access to Python, a bounded time and a
bounded size: what a template could do to grow without bound is counted or taken away.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from string import Formatter
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.environment import Template as Compiled
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 2.0
CHARACTERS = 16 * 1024 * 1024
"""Of a prompt, and of any text that the template builds on its way."""
LARGEST_RANGE = 100_000
LARGEST_INDENT = 16
_FILTERS = """abs batch capitalize count d default dictsort e escape first float groupby int items last length list
lower map max min reject rejectattr reverse round select selectattr slice sort sum title trim unique upper"""
"""Of Jinja's own; the rest (`center`, `format`, `wordwrap`, ...) makes much of little or has no place in a prompt."""
_TEXT_METHODS = """capitalize count endswith find index isalnum isalpha isdecimal isdigit islower isspace isupper join
lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit rstrip split splitlines
startswith strip title upper"""


class Refused(Exception):
    """The template itself refuses the conversation (`raise_exception`); the message is its own."""


class Exhausted(Exception):
    """The template wants more time or more text than it may have."""


class RawJSON(dict[str, Any]):
    """An object that remembers how it was written: `tojson` gives that text back, to the byte."""

    def __init__(self, raw: str, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.raw = raw


class _Generation(Extension):
    """`{% generation %}` marks for training what the model said; for a prompt it means nothing."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        extensions: list[type[Extension] | str] = [loopcontrols, _Generation]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_bounded)
        self.filters = {name: self.filters[name] for name in _FILTERS.split()} | {
            "indent": _indent,
            "join": _join_filter,
            "replace": _replace_filter,
            "safe": lambda value: value,
            "string": lambda value: str(_bounded(value)),
            "tojson": _tojson,
        }
        self.globals = {
            "namespace": self.globals["namespace"],
            "dict": dict,
            "range": _range,
            "raise_exception": _raise,
            "strftime_now": lambda form: datetime.now().strftime(form),
        }
        self._text_methods = frozenset(_TEXT_METHODS.split())
        self._clock = clock
        self._deadline = 0.0

    def run(self, template: Compiled, values: dict[str, Any]) -> str:
        """Refused with the template's own words; TemplateError for a mistake in it; Exhausted."""
        self._deadline = self._clock() + SECONDS
        pieces, size = [], 0
        try:
            for piece in template.generate(values):
                pieces.append(piece)
                size += len(piece)
                if size > CHARACTERS:
                    raise Exhausted(f"it writes more than {CHARACTERS} characters")
        except RecursionError:
            raise Exhausted("it calls itself without end") from None
        except (TypeError, ValueError, KeyError, AttributeError, LookupError, ArithmeticError) as error:
            raise TemplateError(f"{type(error).__name__}: {error}") from error
        return "".join(pieces)

    def compiled(self, source: str) -> Compiled:
        """TemplateError when it is not a template."""
        tree = self.parse(source)
        for loop in tree.find_all(nodes.For):
            loop.body.insert(0, nodes.ExprStmt(_call("tick", [])))
        code = self.compile(_Joined().visit(tree))
        return Compiled.from_code(self, code, self.make_globals(None))

    def tick(self) -> None:
        if self._clock() > self._deadline:
            raise Exhausted(f"it takes longer than {SECONDS:g} s")

    def joined(self, *texts: Any) -> str:
        """The operator `~`."""
        return str(_bounded("".join(str(_bounded(text)) for text in texts)))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`format` fills plain places only: widths are a way to make much of little, and members a way out."""
        text = getattr(value, "__self__", None)
        return partial(_format, text) if isinstance(text, str) and value.__name__ == "format" else None

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in self._text_methods
        if isinstance(obj, list) and attr == "append":
            return True  # to lists of this one rendering
        return super().is_safe_attribute(obj, attr, value)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str) and obj.__name__ == "replace":
            return _replace(owner, *args)
        if isinstance(owner, str) and obj.__name__ == "join":
            return _join(owner, *args)
        return super().call(context, obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            raise SecurityError("powers have no place in a chat template")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("the operator % formats no text in a chat template")
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, list | tuple):
                    raise SecurityError("lists are not multiplied in a chat template")
                if isinstance(text, str) and isinstance(times, int) and len(text) * times > CHARACTERS:
                    raise Exhausted(f"it builds more than {CHARACTERS} characters")
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, list | tuple) and len(result) > LARGEST_RANGE:
            raise Exhausted(f"it builds a list of more than {LARGEST_RANGE}")
        return _bounded(result) if isinstance(result, str) else result


class _Joined:
    """Rewrites `a ~ b` into a call that counts: doubling a text is the shortest way to fill a memory."""

    def visit(self, tree: nodes.Template) -> nodes.Template:
        self._below(tree)
        return tree

    def _below(self, node: nodes.Node) -> None:
        for name, value in list(node.iter_fields()):
            if isinstance(value, nodes.Node):
                setattr(node, name, self._new(value))
            elif isinstance(value, list):
                setattr(node, name, [self._new(item) if isinstance(item, nodes.Node) else item for item in value])

    def _new(self, node: nodes.Node) -> nodes.Node:
        self._below(node)
        return _call("joined", node.nodes) if isinstance(node, nodes.Concat) else node


def _call(method: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None)


def _bounded(value: Any) -> Any:
    """The same value, which is not too large to be written: lists of lists of themselves grow faster than texts."""
    if isinstance(value, str) and len(value) <= CHARACTERS:
        return value
    size, inner = 0, [value]
    while inner and size <= CHARACTERS:
        item = inner.pop()
        size += len(item) if isinstance(item, str) else 1
        if isinstance(item, Mapping):
            inner += [*item.keys(), *item.values()]
        elif isinstance(item, list | tuple):
            inner += item
    if size > CHARACTERS:
        raise Exhausted(f"it builds more than {CHARACTERS} characters")
    return value


def _replace(text: str, old: str, new: str, count: int = -1) -> str:
    found = text.count(old)
    if len(text) + (found if count < 0 else min(found, count)) * len(new) > CHARACTERS:
        raise Exhausted(f"it builds more than {CHARACTERS} characters")
    return text.replace(old, new, count)


def _replace_filter(text: str, old: str, new: str, count: int = -1) -> str:
    return _replace(str(text), str(old), str(new), count)


def _format(text: str, *values: Any, **named: Any) -> str:
    for _, field, spec, conversion in Formatter().parse(text):
        if spec or conversion or (field and not field.isidentifier() and not field.isdigit()):
            raise SecurityError("format fills plain places only in a chat template")
    filled = [str(_bounded(value)) for value in values]
    return str(_bounded(text.format(*filled, **{name: str(_bounded(value)) for name, value in named.items()})))


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    space = width if isinstance(width, str) else " " * width if width <= LARGEST_INDENT else ""
    lines = str(text).split("\n")
    indented = [space + line if line or blank else line for line in lines]
    return str(_bounded("\n".join(indented if first else [lines[0], *indented[1:]])))


def _join_filter(values: Iterable[Any], separator: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        values = [value[attribute] for value in values]
    return _join(str(separator), [str(_bounded(value)) for value in values])


def _join(separator: str, parts: Iterable[str]) -> str:
    found = list(parts)
    if sum(map(len, found)) + len(separator) * len(found) > CHARACTERS:
        raise Exhausted(f"it builds more than {CHARACTERS} characters")
    return separator.join(found)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(value, RawJSON) and indent is None:
        return value.raw
    dump = partial(json.dumps, ensure_ascii=ensure_ascii, separators=separators, sort_keys=sort_keys)
    return dump(_bounded(value), indent=None if indent is None else min(indent, LARGEST_INDENT))


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > LARGEST_RANGE:
        raise Exhausted(f"it counts to more than {LARGEST_RANGE}")
    return found


def _raise(message: str) -> NoReturn:
    raise Refused(str(message))
