"""What becomes of every parameter of every protocol, found by trying: `python -m tokenworks.bench.parameters` writes
docs/parameters.md. A request is sent through the gateway's own code with the parameter and without it; what the
upstream would get, and what the caller would be told, are compared.

Knows no protocol's parameters beyond their names (samples.py), and asks no server.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from tokenworks.bench.samples import SURFACES, Surface
from tokenworks.core.errors import InvalidRequest
from tokenworks.core.request import Conversation, Embeddings, Prompts, Request, Rerank
from tokenworks.gateway.upstreams.parameters import without_effect
from tokenworks.gateway.upstreams.prepare import Prepared, prepare
from tokenworks.protocols import PROTOCOLS, codec
from tokenworks.protocols.base import Observation
from tokenworks.snapshot.records import UpstreamRecord
from tokenworks.worker.engines.llama_server.engine import QUIRKS

LOST = "lost"
"""No parameter may ever come out so: a test sees to it."""
PAGE = Path(__file__).parents[3] / "docs" / "parameters.md"

_PROVIDERS = {
    Conversation: ("openai_chat", "openai_responses", "anthropic_messages"),
    Prompts: ("openai_completions", "tgi"),
    Embeddings: ("openai_embeddings",),
    Rerank: ("rerank",),
}
_OURS = {
    "engine of ours": UpstreamRecord("e", "local/e", ("worker",), "http://e", local=True),
    "llama.cpp's server": UpstreamRecord(
        "l", "local/l", ("openai_chat", "openai_completions"), "http://l", local=True, quirks=QUIRKS
    ),
}
_HEAD = """# Parameters

What becomes of every parameter, by the protocol that the caller speaks and the kind of upstream that answers.
`make docs` makes this page by trying each of them; a test fails when it is not what trying gives.

| word | meaning |
|---|---|
| passed on | the provider gets the caller's own bytes and judges for itself |
| honoured | the upstream gets it under the same name with the same value, or it shapes the answer on our side |
| mapped | the upstream gets it in the way of its own protocol |
| reported | it has no effect, and the answer's header `x-tokenworks-ignored` names it |
| refused | an error 400 names it, because without it the answer would be another one |
| - | the two do not go together |

The request header `x-tokenworks-strict: true` makes an error 400 of what would be reported.

Beyond this, a model of ours refuses by name what needs a capability that it lacks (`tools`, `vision`, `json_schema`,
`embeddings`, `rerank`). Reasoning that a model cannot do is reported, and so is a maximum beyond its `max_output`,
which is cut to it: clients send both without being asked. On llama.cpp's server
`context_length_exceeded_behavior` has an effect as `truncate`, which is what it does anyway.
"""


def page() -> str:
    return _HEAD + "".join(_section(name, surface) for name, surface in SURFACES.items())


def _section(name: str, surface: Surface) -> str:
    rows = outcomes(name, surface)
    columns = list(next(iter(rows.values())))
    lines = [
        f"\n## {surface.title} (`{name}`)\n",
        f"| parameter | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    lines += [f"| `{parameter}` | {' | '.join(row.values())} |" for parameter, row in sorted(rows.items())]
    return "\n".join(lines) + "\n"


def outcomes(name: str, surface: Surface) -> dict[str, dict[str, str]]:
    """For each parameter and each kind of upstream, the word for what becomes of it."""
    task = type(codec(name).decode_request(_body(surface.base)).task)
    return {
        parameter: {kind: _outcome(name, upstream, surface, parameter) for kind, upstream in _upstreams(name, task)}
        for parameter in surface.parameters
    }


def _upstreams(name: str, task: type) -> Iterator[tuple[str, UpstreamRecord]]:
    if name in PROTOCOLS:
        yield "same protocol", UpstreamRecord("s", "provider", (name,), "http://s")
    for protocol in _PROVIDERS[task]:
        if protocol != name:
            yield f"`{protocol}` provider", UpstreamRecord("p", "provider", (protocol,), "http://p")
    for kind, upstream in _OURS.items():
        if kind != "llama.cpp's server" or task in (Conversation, Prompts):
            yield kind, upstream


def _outcome(name: str, upstream: UpstreamRecord, surface: Surface, parameter: str) -> str:
    before = surface.base | surface.needs.get(parameter, {})
    after = _with(before, parameter, surface.parameters[parameter])
    try:
        plain = _send(name, upstream, before)
    except InvalidRequest:
        return "refused"  # what it needs already is
    except NotImplementedError:
        return "-"
    try:
        given = _send(name, upstream, after)
    except InvalidRequest:
        return "refused"
    if name in upstream.protocols and not upstream.local:
        return "honoured" if given.sent == plain.sent and given.answer != plain.answer else "passed on"
    own = parameter.rpartition(".")[2]
    if own in given.reported and own not in plain.reported:
        return "reported"
    if given.sent != plain.sent:
        return "honoured" if _holds(given.sent, own, surface.parameters[parameter]) else "mapped"
    return "honoured" if given.answer != plain.answer else LOST


class _Sent(msgspec.Struct):
    """`answer` is what of the request shapes the answer on our side."""

    sent: Any
    reported: list[str]
    answer: Any


def _send(name: str, upstream: UpstreamRecord, body: Mapping[str, Any]) -> _Sent:
    caller = codec(name)
    request = caller.decode_request(_body(body))
    caller = codec(request.protocol)
    prepared = prepare(caller, request, upstream, "m", Observation(), ("id", 0))
    return _Sent(_comparable(prepared), without_effect(request, upstream, prepared), _neutral(request))


def _comparable(prepared: Prepared) -> Any:
    return msgspec.json.decode(prepared.body)


def _neutral(request: Request) -> Request:
    return replace(request, body=b"", ignored=[], unusual=False)


def _holds(sent: Any, name: str, value: Any) -> bool:
    if isinstance(sent, dict):
        return sent.get(name) == value or any(_holds(member, name, value) for member in sent.values())
    return isinstance(sent, list) and any(_holds(item, name, value) for item in sent)


def _with(body: dict[str, Any], parameter: str, value: Any) -> dict[str, Any]:
    first, _, rest = parameter.partition(".")
    return body | {first: _with(body.get(first, {}), rest, value) if rest else value}


def _body(body: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(body)


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
