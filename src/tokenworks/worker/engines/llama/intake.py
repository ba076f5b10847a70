"""A request of the worker protocol -> choices, with every refusal that can be told before the first token."""

import math
import time
from collections.abc import Mapping
from collections.abc import Sequence as Row
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from tokenworks.core.errors import ContextLengthExceeded, InvalidRequest
from tokenworks.protocols.worker import types as wire
from tokenworks.worker.chat.forced import forced
from tokenworks.worker.chat.reader import Reader
from tokenworks.worker.chat.template import Prompt, Template
from tokenworks.worker.engines.llama.choice import Choice, Parts
from tokenworks.worker.engines.llama.drafting.guesses import Guesses
from tokenworks.worker.engines.llama.drafting.lookup import Lookup
from tokenworks.worker.engines.llama.grammar import Constraint, Grammars
from tokenworks.worker.engines.llama.model import Model
from tokenworks.worker.engines.llama.sampling import Sampler, Settings
from tokenworks.worker.engines.llama.scheduling.names import Names
from tokenworks.worker.engines.llama.scheduling.sequence import Named, Priority, Sequence
from tokenworks.worker.engines.llama.strict import Strict
from tokenworks.worker.engines.llama.text import Detokenizer
from tokenworks.worker.stops import StopFinder

MOST_CHOICES = 128
MOST_ALTERNATIVES = 50
EXPECTED = 128
"""Output tokens of a request that does not limit them, for estimates."""
Number = TypeVar("Number", int, float)
PRIORITIES = {"interactive": Priority.INTERACTIVE, "standard": Priority.STANDARD, "batch": Priority.BATCH}


@dataclass(frozen=True)
class Defaults:
    """Of the weights, where a caller says nothing: as llama.cpp has them."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05

    @classmethod
    def of(cls, model: Model) -> "Defaults":
        def number(key: str, otherwise: float) -> float:
            try:
                return float(model.metadata(f"general.sampling.{key}") or otherwise)
            except ValueError:
                return otherwise

        return cls(
            number("temp", cls.temperature),
            int(number("top_k", cls.top_k)),
            number("top_p", cls.top_p),
            number("min_p", cls.min_p),
        )


@dataclass(slots=True)
class Given:
    """A prompt: its tokens, what the answer begins with, and how its text is read."""

    tokens: list[int]
    thinking: bool = False
    prefix: str = ""
    """The opening of a forced call: part of the prompt and of the answer."""


class Intake:
    def __init__(
        self,
        model: Model,
        template: Template | None,
        grammars: Grammars,
        context: int,
        *,
        lookup: bool,
        guesses: bool,
        names: Names | None = None,
    ) -> None:
        """`guesses`: whether what comes next is; `lookup`: from what was said; see drafting/. `names`: of blocks of
        tokens."""
        self.model = model
        self.template = template
        self._grammars = grammars
        self._context = context
        self._lookup = lookup
        self._guesses = guesses
        self._names = names or Names()
        self._defaults = Defaults.of(model)
        markers = set(template.format.markers) if template is not None else set()
        special = model.special | model.ends
        self._hidden = frozenset(token for token in special if model.text_of(token) not in markers)

    def choices(self, request: wire.GenerateRequest, adapter: str = "") -> tuple[list[Choice], list[Given]]:
        """InvalidRequest or ContextLengthExceeded for what cannot be done."""
        check(request)
        prompts = self._prompts(request)
        if request.n * len(prompts) > MOST_CHOICES:
            raise InvalidRequest(f"At most {MOST_CHOICES} choices in one request.", param="n")
        if request.resume and len(request.resume) != request.n * len(prompts):
            raise InvalidRequest("'resume' has one list of tokens for each choice.", param="resume")
        for emitted in request.resume:
            self._known(emitted, "resume")
        constraint = self._constraint(request)
        strict = self._strict(request) if constraint is None else None
        choices = []
        for number, prompt in enumerate(prompts):
            most = self._most(len(prompt.tokens), request)
            if any(len(emitted) >= most for emitted in request.resume):
                raise InvalidRequest("Nothing is left to generate after the tokens given.", param="resume")
            for copy in range(request.n):
                index = number * request.n + copy
                own = constraint.copy() if constraint is not None else None
                choices.append(self._choice(request, prompt, index, most, own or strict, adapter))
        if request.prefixes and len(prompts) == 1:
            first = choices[0].sequence
            first.named = Named(request.prefixes, self._names.prompt(first.key, prompts[0].tokens))
        return choices, prompts

    def render(
        self,
        messages: Row[wire.Message],
        tools: Row[wire.Tool],
        *,
        thinking: bool | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> Prompt:
        """InvalidRequest when the weights have no chat template."""
        if self.template is None:
            raise InvalidRequest("This model has no chat template: use text completions.", param="messages")
        return self.template.render(messages, tools, thinking=thinking, arguments=arguments)

    def public(self) -> list[int]:
        """What every conversation without a system message begins with."""
        if self.template is None:
            return []
        one, other = (
            self.model.tokenize_pieces(self.render([wire.Message("user", word)], ()).pieces) for word in ("a", "Zoo 7")
        )
        same = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        return one[:same]

    def _prompts(self, request: wire.GenerateRequest) -> list[Given]:
        if request.messages is not None:
            return [self._conversation(request)]
        given = [
            Given(self.model.tokenize(p, first=True) if isinstance(p, str) else self._known(p))
            for p in request.prompts or ()
        ]
        for prompt in given:
            if not prompt.tokens:  # something has to come before the first token
                prompt.tokens = [self.model.bos if self.model.bos >= 0 else self.model.eos]
        return given

    def _conversation(self, request: wire.GenerateRequest) -> Given:
        must = _must_call(request)
        tools = request.tools if request.tool_choice != "none" else ()
        bounded = must or _bounded(request)
        thinking = False if bounded else request.thinking
        prompt = self.render(request.messages or (), tools, thinking=thinking, arguments=request.template_arguments)
        tokens = self.model.tokenize_pieces(prompt.pieces)
        if not must or self.template is None:
            return Given(tokens, prompt.thinking)
        try:
            prefix = forced(self.template.format, request.tools, request.forced_tool).prefix
        except ValueError as error:
            raise InvalidRequest(f"The tool to call is not among the tools: {error}.", param="tool_choice") from error
        return Given(tokens + self.model.tokenize(prefix), False, prefix)

    def _known(self, tokens: Row[int], param: str = "prompt") -> list[int]:
        for token in tokens:
            if not 0 <= token < self.model.tokens:
                raise InvalidRequest(f"{token} is no token of this model: 0 to {self.model.tokens - 1}.", param=param)
        return list(tokens)

    def _constraint(self, request: wire.GenerateRequest) -> Constraint | None:
        if _must_call(request) and self.template is not None:
            return self._grammars.json(forced(self.template.format, request.tools, request.forced_tool).schema)
        if request.json or request.json_schema is not None:
            return self._grammars.json(request.json_schema)
        if request.regex is not None:
            return self._grammars.regex(request.regex)
        return self._grammars.grammar(request.grammar) if request.grammar is not None else None

    def _strict(self, request: wire.GenerateRequest) -> Strict | None:
        """Of an answer that may call functions whose arguments must match their schemas."""
        strict = [tool for tool in request.tools if tool.strict] if request.tool_choice != "none" else []
        if not strict or request.messages is None:
            return None
        held = {tool.name: self._grammars.arguments(tool.parameters) for tool in strict}
        return Strict(held, partial(self.model.tokenize, special=False))

    def _most(self, prompt: int, request: wire.GenerateRequest) -> int:
        """Tokens of the answer."""
        room = self._context - prompt
        if request.truncate and room > 0:
            return min(request.max_tokens or room, room)
        if room < (request.max_tokens or 1):
            wanted = request.max_tokens or 1
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self._context} tokens. However, you requested "
                f"{prompt + wanted} tokens ({prompt} in the prompt, {wanted} in the completion). "
                "Please reduce the length of the prompt or the completion.",
                param="messages" if request.messages is not None else "prompt",
            )
        return request.max_tokens or room

    def _choice(
        self,
        request: wire.GenerateRequest,
        prompt: Given,
        index: int,
        most: int,
        held: Constraint | Strict | None,
        adapter: str,
    ) -> Choice:
        emitted = list(request.resume[index]) if request.resume else []
        tokens = [*prompt.tokens, *emitted]
        sequence = Sequence(
            tokens=list(tokens),
            limit=len(prompt.tokens) + most,
            tenant=request.tenant,
            key=(f"{request.tenant}\0{request.salt}" if request.salt else request.tenant, adapter),
            priority=PRIORITIES.get(request.priority, Priority.STANDARD),
            deadline=time.monotonic() + request.deadline if request.deadline is not None else math.inf,
            expected=min(most, EXPECTED),
        )
        sampler = Sampler(self._settings(request), index, tokens, len(emitted))
        lookup = Lookup(tokens) if self._lookup else None
        parts = Parts(
            sampler=sampler,
            text=Detokenizer(self.model.pieces, self._hidden),
            stops=StopFinder(request.sampling.stop),
            reader=self._reader(request, prompt),
            constraint=held if isinstance(held, Constraint) else None,
            strict=held if isinstance(held, Strict) else None,
            logprobs=request.logprobs,
            guesses=Guesses(lookup, sampler) if self._guesses else None,
            stops_after=request.sampling.min_tokens or 0,
        )
        choice = Choice(index, sequence, parts, self.model.ends, self.model.pieces)
        if prompt.prefix:
            choice.begin(prompt.prefix)
        if emitted:
            try:
                choice.resume(emitted)
            except ValueError as error:
                raise InvalidRequest(f"Choice {index} cannot go on from there: {error}.", param="resume") from error
            if choice.finished:
                raise InvalidRequest(f"Choice {index} has ended: nothing follows.", param="resume")
        return choice

    def _reader(self, request: wire.GenerateRequest, prompt: Given) -> Reader | None:
        if request.messages is None or self.template is None:
            return None
        written = self.template.format
        tools = request.tools if request.tool_choice != "none" else ()
        plain = not tools and (written.thoughts is None or _bounded(request))
        parallel = request.parallel_tool_calls and not _must_call(request)
        return None if plain else Reader(written, tools, thinking=prompt.thinking, parallel=parallel)

    def _settings(self, request: wire.GenerateRequest) -> Settings:
        asked, usual = request.sampling, self._defaults
        ends = tuple(self.model.ends)
        bias = {}
        for text, value in asked.logit_bias.items():
            if not text.isdigit() or int(text) >= self.model.tokens:
                raise InvalidRequest(f"'{text}' is no token of this model.", param="logit_bias")
            bias[int(text)] = value
        return Settings(
            temperature=_or(asked.temperature, usual.temperature),
            top_k=max(0, _or(asked.top_k, usual.top_k)),
            top_p=_or(asked.top_p, usual.top_p),
            min_p=_or(asked.min_p, usual.min_p),
            typical=_or(asked.typical_p, 1.0),
            frequency=asked.frequency_penalty or 0.0,
            presence=asked.presence_penalty or 0.0,
            repetition=_or(asked.repetition_penalty, 1.0),
            seed=asked.seed,
            bias=bias,
            banned=ends if asked.ignore_eos else (),
            banned_until=asked.min_tokens or 0,
            late=ends if asked.min_tokens else (),
        )


def _or(asked: Number | None, usual: Number) -> Number:
    return usual if asked is None else asked


def _must_call(request: wire.GenerateRequest) -> bool:
    return bool(request.tools) and (request.forced_tool is not None or request.tool_choice == "required")


def _bounded(request: wire.GenerateRequest) -> bool:
    """Whether the whole answer is held to a form, which leaves no room for thoughts."""
    return request.json or any(form is not None for form in (request.json_schema, request.regex, request.grammar))


def check(request: wire.GenerateRequest) -> None:
    """InvalidRequest for what no model can do."""
    tasks = (request.messages, request.prompts, request.embed, request.rank)
    if sum(task is not None for task in tasks) != 1:
        raise InvalidRequest("Give one of 'messages', 'prompts', 'embed' and 'rank'.", param="messages")
    if request.messages is not None and not request.messages:
        raise InvalidRequest("A conversation has at least one message.", param="messages")
    if request.logprobs is not None and request.logprobs > MOST_ALTERNATIVES:
        raise InvalidRequest(f"At most {MOST_ALTERNATIVES} alternatives to a token.", param="logprobs")
    if request.priority not in PRIORITIES:
        raise InvalidRequest(f"'priority' is one of {', '.join(PRIORITIES)}.", param="priority")
