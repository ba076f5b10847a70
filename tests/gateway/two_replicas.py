"""Two real engines behind real gateways, and ways to ask them."""

import contextlib
import itertools
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from tests.gateway.conftest import KEY, PROGRAM, Gateway, Loop, key_record, running_gateway, wait_for
from tests.gateway.replicas import Replica
from tests.worker.conftest import SOURCE

from tokenworks.models import Entry, fetch
from tokenworks.snapshot.records import FREE, ModelRecord, PolicyRecord, TargetRecord, UpstreamRecord

OTHER_KEY = "sk-tw-of-another-project"
CACHE = Path(os.environ.get("TOKENWORKS_CACHE_DIR", Path(__file__).parents[2] / ".cache"))
DEAF = ("-c", "import tokenworks.gateway.upstreams.kv_events as e; e.KVListeners.changed = lambda self, state: None; "
        "import runpy, sys; runpy.run_module('tokenworks.gateway', run_name='__main__')")  # fmt: skip
"""A gateway that listens to nobody, as it is where engines tell nothing."""
LISTENS = PROGRAM
WORDS = [
    "harbour",
    "lantern",
    "velvet",
    "orchard",
    "marble",
    "thunder",
    "copper",
    "meadow",
    "island",
    "whistle",
    "candle",
    "river",
]
_numbers = itertools.count()


@contextlib.contextmanager
def fleet(loop: Loop, *programs: Sequence[str], cache: int = 8) -> Iterator[tuple[list[Gateway], dict[str, Replica]]]:
    """A gateway for each of the `programs`, and the replicas a and b of the model "ours". `cache`: MiB of each; one
    holds 45 tokens of these weights."""
    weights = fetch(Entry(name="smollm2-135m", source=SOURCE), CACHE)
    options = {"slots": 4, "context": 1024, "threads": 1, "cache": cache}
    told = [text for name, value in options.items() for text in ("--option", f"{name}={value}")]
    with contextlib.ExitStack() as stack:
        key = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tw-"))) / "k"
        arguments = ("--engine", "llama", "--weights", f"file:{weights}", *told)
        replicas = {name: Replica(stack, name, arguments, key) for name in ("a", "b")}
        gateways = [stack.enter_context(running_gateway(loop, program=program)) for program in programs]
        records = [named(each) for each in replicas.values()]
        for gateway, program in zip(gateways, programs, strict=True):
            publish(gateway, records)
            if program is not DEAF:
                wait_for(lambda gateway=gateway: None not in held(gateway, talk("x")).values(), 30)  # type: ignore[misc]
        yield gateways, replicas


def named(replica: Replica) -> UpstreamRecord:
    """Each has a name of its own, so that answers say who gave them."""
    return msgspec.structs.replace(replica.record(), provider=replica.name)


def publish(gateway: Gateway, records: list[UpstreamRecord]) -> None:
    state = gateway.control._state
    targets = tuple(TargetRecord(each.id, "m") for each in records)
    models = {**state.models, "ours": ModelRecord("ours", 1, targets, prices=(FREE,), policy=PolicyRecord(hedge=0))}
    upstreams = {**state.upstreams, **{each.id: each for each in records}}
    other = msgspec.structs.replace(key_record(OTHER_KEY), project_id="proj_2")
    keys = {**state.keys, other.digest: other}
    gateway.control.publish(replace(state, revision=state.revision + 1, models=models, upstreams=upstreams, keys=keys))
    wait_for(lambda: b'"ours"' in call(gateway, "GET", "/v1/models")[0])


def call(
    gateway: Gateway, method: str, path: str, body: Any = None, key: str = KEY, **headers: str
) -> tuple[bytes, Any]:
    data = None if body is None else json.dumps(body).encode()
    told = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
    with urllib.request.urlopen(
        urllib.request.Request(gateway.url + path, data, told, method=method), timeout=60
    ) as it:
        return it.read(), it.headers


def story(words: int = 40) -> str:
    """Text that nobody had before."""
    number = next(_numbers)
    return " ".join(f"{WORDS[(number + place * 7) % len(WORDS)]}{number}" for place in range(words))


def talk(*turns: str, system: str | None = None) -> list[dict[str, str]]:
    roles = itertools.cycle(("user", "assistant"))
    said = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    return said if system is None else [{"role": "system", "content": system}, *said]


@dataclass
class Answer:
    who: str
    text: str
    prompt: int
    cached: int


def ask(gateway: Gateway, messages: list[dict[str, str]], key: str = KEY, **headers: str) -> Answer:
    body = {"model": "ours", "messages": messages, "max_tokens": 4, "temperature": 0}
    raw, head = call(gateway, "POST", "/v1/chat/completions", body, key, **headers)
    answer = json.loads(raw)
    usage = answer["usage"]
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    text = answer["choices"][0]["message"]["content"]
    return Answer(head["x-tokenworks-provider"], text, usage["prompt_tokens"], cached)


def held(gateway: Gateway, messages: list[dict[str, str]], key: str = KEY) -> dict[str, int | None]:
    """Tokens of them that each replica has, as far as the gateway knows."""
    raw, _ = call(gateway, "POST", "/v1/route:explain", {"model": "ours", "messages": messages}, key)
    return {each["upstream"]: each["held_tokens"] for each in json.loads(raw)["models"][0]["candidates"]}


def rate(gateway: Gateway, systems: int, conversations: int) -> float:
    """Share of prompt tokens that came from a cache: conversations of two turns, three at a time, that begin with one
    of a few system prompts. The caches hold about half of them."""
    heads = [story(40) for _ in range(systems)]

    def converse(number: int) -> list[Answer]:
        head, question = heads[number * 5 % systems], f"{number}: {story(12)}"
        one = ask(gateway, talk(question, system=head))
        return [one, ask(gateway, talk(question, one.text, "Why?", system=head))]

    with ThreadPoolExecutor(3) as pool:
        answers = [answer for pair in pool.map(converse, range(conversations)) for answer in pair]
    return sum(each.cached for each in answers) / sum(each.prompt for each in answers)
