"""What a chaos run tries, and the configuration that makes it so: the operator's models in front of chaos."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

from tokenworks.chaos.faults import KINDS
from tokenworks.config.records import Configuration, ModelConfig, ProviderConfig
from tokenworks.core.target import RouteLimits
from tokenworks.protocols import PROTOCOLS, codec

BOUND = 4.0
"""Seconds that the longest route's total limit becomes; the others in proportion, but none so short that a busy machine
breaks it."""
SHORTEST = 0.4
SPARE = "spare."
"""Begins the names of the providers that are well."""
CHAT_PATH = "/chat/completions"
CLIENTS = (CHAT_PATH, "/messages", "/responses")
"""Paths of the protocols whose clients are played."""
PRIMARIES = {"prefill-refused": "cut", "bad-tls": "ok"}
"""Faults that are not the first target's model: the second refuses a prefill after the first was cut; the address is
wrong, not the model."""
FAULTS = {**KINDS, "bad-tls": "the TLS handshake fails"}
ANYWAY = frozenset({"ok", "wrong-usage", "trickle", "huge-chunk", "flapping", "error-500-once"})
"""What a caller need not notice even when nobody else can answer."""
FINAL = frozenset({"content-filter"})
"""What nobody else is asked about."""


@dataclass(frozen=True, slots=True)
class Case:
    """One request. `model` is the private stack's name for it, with upstreams that nobody else asks. `client` is the
    name of its protocol, `bound` the route's total limit there, in seconds."""

    model: str
    original: str
    fault: str
    fallback: bool
    client: str
    stream: bool
    bound: float

    @property
    def hoped_for(self) -> frozenset[str]:
        """The verdicts that are as good as can be."""
        if self.fault in FINAL:
            return frozenset({"clean error"})
        answered = frozenset({"answered", "rescued"})
        if self.fallback:
            return answered
        return answered if self.fault in ANYWAY - {"flapping", "wrong-usage"} else answered | {"clean error"}


def scaled(limits: RouteLimits) -> RouteLimits:
    factor = min(BOUND / limits.total, 1.0)

    def short(seconds: float) -> float:
        return min(max(seconds * factor, SHORTEST), BOUND)

    return RouteLimits(short(limits.connect), short(limits.first_token), short(limits.idle), BOUND)


def cases(models: Iterable[str], faults: Iterable[str]) -> list[Case]:
    clients = [name for name in PROTOCOLS if codec(name).path in CLIENTS]
    wishes = itertools.product(models, faults, (True, False), clients, (True, False))
    return [Case(f"chaos-{number}", *wish, BOUND) for number, wish in enumerate(wishes)]


def write(configuration: Configuration, cases: Iterable[Case], port: int) -> str:
    """The private stack's configuration file. Policies are the operator's own; prices do not matter."""
    worker = ProviderConfig("worker", (_chat(),), "")
    text = ""
    for number, case in enumerate(cases):
        model = configuration.models[case.original]
        names = [target.partition("/")[0] for target in model.targets]
        own = [configuration.providers[name] for name in names] or [worker]
        other = own[1] if len(own) > 1 else own[0]
        first, spare = f"{number}.{own[0].name}", f"{SPARE}{number}.{other.name}"
        targets = [f"{first}/{PRIMARIES.get(case.fault, case.fault)}"]
        text += _provider(first, own[0], port, "https" if case.fault == "bad-tls" else "http")
        if case.fallback:
            targets.append(f"{spare}/{'prefill-refused' if case.fault == 'prefill-refused' else 'ok'}")
            text += _provider(spare, other, port, "http")
        text += _model(case, replace(model, targets=tuple(targets)))
    return text


def _provider(name: str, like: ProviderConfig, port: int, scheme: str) -> str:
    return f"""[providers.{_quoted(name)}]
protocol = {json.dumps(list(like.protocols))}
base_url = {_quoted(f"{scheme}://127.0.0.1:{port}/v1")}
quirks = {json.dumps(list(like.quirks))}
"""


def _model(case: Case, model: ModelConfig) -> str:
    short, policy = scaled(model.limits), model.policy
    limits = ", ".join(f"{field.name} = {getattr(short, field.name)}" for field in fields(short))
    spare_hedges = 0 if case.fault != "ok" else policy.hedge
    return f"""[models.{_quoted(case.model)}]
targets = {json.dumps(list(model.targets))}
price = {{input = 0, output = 0}}
limits = {{{limits}}}
[models.{_quoted(case.model)}.policy]
retries = {policy.retries}
hedge = {spare_hedges}
on_stream_loss = {_quoted(policy.on_stream_loss)}
breaker = {policy.breaker}
stream_whole = {str(policy.stream_whole).lower()}
"""


def _chat() -> str:
    """What a worker's model is played in."""
    return next(name for name in PROTOCOLS if codec(name).path == CHAT_PATH)


def _quoted(text: str) -> str:
    return json.dumps(text)
