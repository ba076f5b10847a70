"""TOML -> Configuration, collecting every problem with its line on the way."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tokenworks.config import values
from tokenworks.config.guardrails import CHECKS as GUARDRAIL
from tokenworks.config.guardrails import guardrail
from tokenworks.config.positions import Path as KeyPath
from tokenworks.config.positions import key_lines
from tokenworks.config.problems import ConfigError, Problem, choose
from tokenworks.config.records import (
    AliasConfig,
    Configuration,
    GuardrailConfig,
    ModelConfig,
    ModelFacts,
    ProviderConfig,
    Stated,
)
from tokenworks.config.values import Bad, Check
from tokenworks.core.aliases import reading
from tokenworks.core.aliases.resolving import cycle
from tokenworks.core.price import STATED, unclear, uncounted
from tokenworks.core.routing import SORTS
from tokenworks.core.target import Policy, RouteLimits

T = TypeVar("T")

SERVE: dict[str, Check[Any]] = {
    "host": values.string,
    "port": values.port,
    "data_dir": values.string,
    "cache_dir": values.string,
    "model": values.names,
    "catalog": values.names,
    "json": values.flag,
    "verbose": values.flag,
}
LABELS: dict[str, Check[Any]] = {
    "region": values.string,
    "jurisdiction": values.string,
    "retention": values.duration,
    "trains": values.flag,
}
STREAM_LOSS = ("resume", "restart", "error")
POLICY: dict[str, Check[Any]] = {
    "retries": values.count,
    "hedge": values.percentile,
    "on_stream_loss": values.one_of(frozenset(STREAM_LOSS), partial(choose, known=STREAM_LOSS)),
    "breaker": values.count,
    "stream_whole": values.flag,
    "sort": values.one_of(frozenset(SORTS), partial(choose, known=SORTS)),
    "cache": values.duration,
    "cache_max": values.duration,
    "cache_price": values.share,
    "semantic_model": values.model_name,
    "semantic_threshold": values.share,
    "semantic_temperature": values.temperature,
}
LIMITS: dict[str, Check[Any]] = {field.name: values.seconds for field in fields(RouteLimits)}
PRICE: dict[str, Check[Any]] = dict.fromkeys(STATED, values.price)
WAYS = ("aws", "azure", "azure_deployments", "google", "google_messages", "header")
"""Of gateway/upstreams/providers; a test compares."""
QUIRKS = (
    "closes_after_stream",
    "completion_logprobs_as_chat",
    "continues_flagged",
    "continues_marked",
    "continues_prefill",
    "forced_tools_by_schema",
    "grammars",
    "no_echo",
    "no_min_tokens",
    "no_prefill",
    "no_reasoning_back",
    "no_suffix",
    "reasoning_by_template",
    "reasoning_details",
    "repeat_penalty",
    "repeats_prefix",
    "signs_calls",
    "usage_in_text_chunk",
    "usage_per_choice",
)
"""Of gateway/upstreams/quirks; a test compares."""
_QUIRK = values.one_of(frozenset(QUIRKS), partial(choose, known=QUIRKS))
FACTS: dict[str, Check[Any]] = {
    "context_length": values.tokens,
    "quantization": values.string,
    "capabilities": values.words,
}
PROVIDER: dict[str, Check[Any]] = {
    "like": values.plain_name,
    "base_url": values.url,
    "api_key": lambda value: (values.credential(value),),
    "auth": values.one_of(frozenset(WAYS), partial(choose, known=WAYS)),
    "region": values.string,
    "jurisdiction": values.string,
    "retention": values.duration,
    "trains": values.flag,
    "quantization": values.string,
    "capabilities": values.words,
}


def load(
    path: Path,
    *,
    protocols: Collection[str],
    engines: Collection[str] | None,
    known_providers: Mapping[str, ProviderConfig] | None = None,
) -> Configuration:
    """Read and check a file. `known_providers` are the ones targets may name without a table of their own.

    `engines` None takes any name: the engines are the worker's, and control cannot know them.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        problem = Problem(str(path), 1, f"cannot be read: {error.strerror}; name a readable file")
        raise ConfigError([problem]) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(path), line, "is not UTF-8; save it in UTF-8")]) from error
    return parse(text, file=str(path), protocols=protocols, engines=engines, known_providers=known_providers)


def parse(
    text: str,
    *,
    file: str,
    protocols: Collection[str],
    engines: Collection[str] | None,
    known_providers: Mapping[str, ProviderConfig] | None = None,
) -> Configuration:
    """`load` for text that has been read already; `file` is its name in messages."""
    document = _toml(text, file)
    reader = _Reader(
        file,
        key_lines(text),
        frozenset(protocols),
        None if engines is None else frozenset(engines),
        dict(known_providers or {}),
    )
    configuration = reader.configuration(document)
    if reader.problems:
        raise ConfigError(reader.problems)
    return configuration


def read_providers(text: str, *, file: str, protocols: Collection[str]) -> dict[str, ProviderConfig]:
    """Only the `[providers.NAME]` tables, with the placeholders of their URLs as they stand there."""
    reader = _Reader(file, key_lines(text), frozenset(protocols), None, {})
    found = reader.providers(_toml(text, file))
    if reader.problems:
        raise ConfigError(reader.problems)
    return found


def _toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=values.Number)
    except RecursionError as error:
        raise ConfigError([Problem(file, 1, "is nested too deeply; flatten it")]) from error
    except ValueError as error:  # TOMLDecodeError, or an integer of thousands of digits
        line, message = _syntax(str(error), text)
        raise ConfigError([Problem(file, line, f"is not TOML: {message}; correct the syntax")]) from error


def _syntax(message: str, text: str) -> tuple[int, str]:
    """tomllib's "what (at line 3, column 5)" -> (3, "what")."""
    what, _, where = message.rpartition(" (at ")
    if where.startswith("line "):
        return int(where.removeprefix("line ").partition(",")[0]), what
    return text.count("\n") + 1, what or message


class _Reader:
    def __init__(
        self,
        file: str,
        lines: dict[KeyPath, int],
        protocols: frozenset[str],
        engines: frozenset[str] | None,
        known_providers: dict[str, ProviderConfig],
    ) -> None:
        self.problems: list[Problem] = []
        self._file = file
        self._lines = lines
        self._known_providers = known_providers
        self._protocol = values.one_of(protocols, partial(choose, known=protocols))
        self._engine = values.string if engines is None else values.one_of(engines, partial(choose, known=engines))

    def configuration(self, document: dict[str, Any]) -> Configuration:
        known = ("providers", "models", "aliases", "serve", "installation", "sinks", "guardrails")
        self._refuse_unknown((), document, known)
        named = self._tables(document, "providers")
        providers = self.providers(document)
        models = {name: self._model(name, table, named) for name, table in self._tables(document, "models").items()}
        for model in models.values():
            for target in model.targets:
                provider = target.partition("/")[0]
                if provider in self._known_providers and provider not in providers:
                    providers[provider] = self._known_providers[provider]
                    self._check_filled(providers[provider], ("models", model.name, "targets"))
        for name in named:
            self._check_filled(providers[name], ("providers", name))
        options = self._keys(("serve",), document.get("serve", {}), SERVE)
        labels = self._keys(("installation",), document.get("installation", {}), LABELS)
        sinks = {name: self._sink(name, table) for name, table in self._tables(document, "sinks").items()}
        self._check_adapters(models)
        aliases = self._aliases(document, models)
        guardrails = self._guardrails(document, models)
        return Configuration(providers, models, options, Stated(**labels), sinks, aliases, guardrails)

    def _sink(self, name: str, table: Any) -> Stated:
        self._check(("sinks", name), values.plain_name, name)
        return Stated(**self._keys(("sinks", name), table, LABELS))

    def _aliases(self, document: dict[str, Any], models: Mapping[str, ModelConfig]) -> dict[str, AliasConfig]:
        """Whom they name is looked at where every model is known: workers and other hands add some."""
        configs, read = {}, {}
        for name, table in self._tables(document, "aliases").items():
            path = ("aliases", name)
            if name in models:
                self._problem(path, f"{_dotted(path)} has the name of a model; give it another one")
            if not isinstance(table, dict):
                self._problem(path, f'{_dotted(path)} must be a table; write to = "MODEL" in it')
                continue
            definition = {key: value for key, value in table.items() if key != "price"}
            try:
                definition = values.plain(definition)
                read[name] = reading.read(name, definition)
            except Bad as bad:
                self._problem(path, f"{_dotted(path)} {bad}")
            except reading.Unreadable as error:
                for place, message in error.problems:
                    self._problem((*path, *place), f"{_dotted((*path, *place))} {message}")
            price = self._rates((*path, "price"), table["price"]) if "price" in table else None
            configs[name] = AliasConfig(name, definition, price)
        if (way := cycle(read)) is not None:
            self._problem(("aliases", way[0]), f"aliases lead in a circle: {' -> '.join(way)}; let one name a model")
        return configs

    def providers(self, document: dict[str, Any]) -> dict[str, ProviderConfig]:
        """With the placeholders of their URLs as they stand there."""
        return {name: self._provider(name, table) for name, table in self._tables(document, "providers").items()}

    def _provider(self, name: str, table: Any) -> ProviderConfig:
        path = ("providers", name)
        self._check((*path,), values.plain_name, name)
        tables: dict[str, Check[Any]] = {
            "protocol": lambda value: self._protocols((*path, "protocol"), value),
            "api_keys": lambda value: self._each((*path, "api_keys"), value, values.credential),
            "quirks": lambda value: self._each((*path, "quirks"), value, _QUIRK),
            "settings": lambda value: self._options((*path, "settings"), value, values.string),
            "costs": lambda value: self._costs((*path, "costs"), value),
            "models": lambda value: self._facts((*path, "models"), value),
        }
        given = self._keys(path, table, PROVIDER | tables)
        if "api_key" in given and "api_keys" in given:
            self._problem((*path, "api_keys"), f"{_dotted(path)} has both api_key and api_keys; keep one of them")
        for key, record in (("protocol", "protocols"), ("api_key", "api_keys")):
            if key in given:
                given[record] = given.pop(key)
        like = given.pop("like", name)
        if like in self._known_providers:
            known = self._known_providers[like]
            settings = {"settings": known.settings | given.pop("settings", {})}
            return replace(known, name=name, **settings, **given)
        if like != name:
            said = choose(like, self._known_providers)
            self._problem((*path, "like"), f"{_dotted((*path, 'like'))} {like!r} is no shipped provider; {said}")
        for key in ("protocol", "base_url"):
            if isinstance(table, dict) and key not in table:
                self._problem(path, f"{_dotted(path)} has no {key!r}; add it")
        return ProviderConfig(name, **{"protocols": (), "base_url": ""} | given)

    def _guardrails(self, document: dict[str, Any], models: dict[str, ModelConfig]) -> dict[str, GuardrailConfig]:
        tables, found = self._tables(document, "guardrails"), {}
        for model in models.values():
            for name in model.guardrails:
                if name not in tables:
                    said = f"models.{model.name}.guardrails names {name!r}, which is unknown; {choose(name, tables)}"
                    self._problem(("models", model.name, "guardrails"), said)
        for name, table in tables.items():
            path = ("guardrails", name)
            self._check(path, values.plain_name, name)
            attached = any(name in model.guardrails for model in models.values())

            def problem(key: str, message: str, path: KeyPath = path) -> None:
                path = (*path, key) if key else path
                self._problem(path, f"{_dotted(path)} {message}")

            found[name] = guardrail(name, table, self._keys(path, table, GUARDRAIL), attached, problem)
        return found

    def _check_filled(self, provider: ProviderConfig, path: KeyPath) -> None:
        for name in provider.missing:
            remedy = 'region = "..."' if name == "region" else f'settings = {{{name} = "..."}}'
            said = f"providers.{provider.name}.base_url needs {{{name}}}: {provider.base_url}"
            self._problem(path, f"{said}; add {remedy} to [providers.{provider.name}]")

    def _protocols(self, path: KeyPath, value: Any) -> tuple[str, ...] | None:
        if isinstance(value, list):
            return self._each(path, value, self._protocol) or None
        return (self._protocol(value),)

    def _each(self, path: KeyPath, value: Any, check: Check[T]) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise Bad(f"must be an array, not {values.type_name(value)}; write [...]")
        checked = [self._check((*path, index), check, item) for index, item in enumerate(value)]
        return tuple(item for item in checked if item is not None)

    def _facts(self, path: KeyPath, value: Any) -> dict[str, ModelFacts]:
        if not isinstance(value, dict):
            raise Bad(f'must be a table, not {values.type_name(value)}; write {{"model" = {{context_length = 8192}}}}')
        return {name: ModelFacts(**self._keys((*path, name), table, FACTS)) for name, table in value.items()}

    def _model(self, name: str, table: Any, providers: dict[str, Any]) -> ModelConfig:
        path = ("models", name)
        self._check(path, values.model_name, name)
        keys: dict[str, Check[Any]] = {
            "targets": lambda value: self._targets((*path, "targets"), value, providers),
            "limits": lambda value: RouteLimits(**self._keys((*path, "limits"), value, LIMITS)),
            "policy": lambda value: Policy(**self._keys((*path, "policy"), value, POLICY)),
            "price": lambda value: (self._bought if "targets" in table else self._rates)((*path, "price"), value),
            "engine": self._engine,
            "adapter_of": values.model_name,
            "weights": values.string,
            "guardrails": values.words,
            "options": lambda value: self._options((*path, "options"), value),
        }
        given = self._keys(path, table, keys)
        if isinstance(table, dict):
            self._check_answered(path, table)
        self._check_semantic((*path, "policy"), given.get("policy") or Policy())
        return ModelConfig(name, **given)

    def _check_semantic(self, path: KeyPath, policy: Policy) -> None:
        if policy.semantic_threshold and not policy.semantic_model:
            said = 'needs a model whose embeddings are compared; add semantic_model = "..."'
            self._problem((*path, "semantic_threshold"), f"{_dotted((*path, 'semantic_threshold'))} {said}")
        if policy.semantic_model and not (policy.cache or policy.cache_max):
            said = "has no effect without a cache; add cache or cache_max"
            self._problem((*path, "semantic_model"), f"{_dotted((*path, 'semantic_model'))} {said}")

    def _check_adapters(self, models: Mapping[str, ModelConfig]) -> None:
        """A model that the file does not have may be one that workers bring."""
        for model in models.values():
            base = models.get(model.adapter_of or "")
            if base is not None and not base.engine:
                path = ("models", model.name, "adapter_of")
                self._problem(path, f"{_dotted(path)} names '{base.name}', which has no engine; name a model that has")

    def _check_answered(self, path: KeyPath, table: dict[str, Any]) -> None:
        where = _dotted(path)
        given = [key for key in ("targets", "engine", "adapter_of") if key in table]
        if not given:
            self._problem(path, f'{where} has nobody to answer it; add targets = ["provider/model"] or an engine')
        if len(given) > 1:
            both = " and ".join("an engine" if key == "engine" else key for key in given[:2])
            self._problem((*path, given[1]), f"{where} has both {both}; keep one of them")
        for key in ("weights", "options"):
            if key in table and "engine" not in table:
                self._problem((*path, key), f"{_dotted((*path, key))} needs an engine; add one, or remove it")

    def _targets(self, path: KeyPath, value: Any, providers: dict[str, Any]) -> tuple[str, ...]:
        if not isinstance(value, list) or not value:
            raise Bad('must be a non-empty array; write ["provider/model"]')
        targets = []
        for index, item in enumerate(value):
            parts = self._check((*path, index), values.target, item)
            if parts is None:
                continue
            known = providers.keys() | self._known_providers.keys()
            if parts[0] not in known:
                self._problem((*path, index), f"target {item!r} names an unknown provider; {choose(parts[0], known)}")
            if item in targets:
                self._problem((*path, index), f"target {item!r} stands there twice; remove one")
            targets.append(item)
        return tuple(targets)

    def _rates(self, path: KeyPath, value: Any) -> dict[str, int]:
        given = self._keys(path, value, PRICE)
        rates = {STATED[name][0]: nano * STATED[name][1] for name, nano in given.items()}
        if isinstance(value, dict) and len(given) == len(value) and (problem := unclear(rates)):
            self._problem(path, f"{_dotted(path)} {problem}")
        return rates

    def _costs(self, path: KeyPath, value: Any) -> dict[str, dict[str, int]]:
        if not isinstance(value, dict):
            raise Bad(f'must be a table, not {values.type_name(value)}; write {{"model" = {{input = 1, output = 2}}}}')
        return {name: self._bought((*path, name), table) for name, table in value.items()}

    def _bought(self, path: KeyPath, value: Any) -> dict[str, int]:
        """Rates of what others answer."""
        rates = self._rates(path, value)
        if problem := uncounted(rates):
            self._problem((*path, "gpu_second"), f"{_dotted(path)} {problem}")
        return rates

    def _options(self, path: KeyPath, value: Any, check: Check[Any] = values.plain) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise Bad(f"must be a table, not {values.type_name(value)}; write {{key = value}}")
        return self._keys(path, value, dict.fromkeys(value, check))

    def _tables(self, document: dict[str, Any], key: str) -> dict[str, Any]:
        value = document.get(key, {})
        if isinstance(value, dict):
            return value
        self._problem((key,), f"{key!r} must hold tables; write [{key}.NAME]")
        return {}

    def _keys(self, path: KeyPath, table: Any, checks: Mapping[str, Check[Any]]) -> dict[str, Any]:
        """The valid ones of a table's values; a problem for every other."""
        if not isinstance(table, dict):
            self._problem(
                path, f"{_dotted(path)} must be a table, not {values.type_name(table)}; write key = value in it"
            )
            return {}
        self._refuse_unknown(path, table, checks)
        checked = {key: self._check((*path, key), checks[key], value) for key, value in table.items() if key in checks}
        return {key: value for key, value in checked.items() if value is not None}

    def _check(self, path: KeyPath, check: Check[T], value: Any) -> T | None:
        try:
            return check(value)
        except Bad as bad:
            self._problem(path, f"{_dotted(path)} {bad}")
            return None

    def _refuse_unknown(self, path: KeyPath, table: dict[str, Any], known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                self._problem((*path, key), f"unknown key {_dotted((*path, key))}; {choose(key, known)}")

    def _problem(self, path: KeyPath, message: str) -> None:
        while path not in self._lines:
            path = path[:-1]
        self.problems.append(Problem(self._file, self._lines[path], message))


def _dotted(path: KeyPath) -> str:
    """models.assistant.targets[0], with quotes where TOML wants them."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            quoted = part if part.replace("-", "").replace("_", "").isalnum() and part.isascii() else repr(part)
            text += f".{quoted}" if text else quoted
    return text
