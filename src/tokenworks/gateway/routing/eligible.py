"""Who may not answer a request, and why. A label that nobody stated counts as a no wherever somebody requires it."""

from collections.abc import Iterable, Iterator

from tokenworks.core.caller import Caller
from tokenworks.core.needs import needed
from tokenworks.core.price import Tariff
from tokenworks.core.request import Request
from tokenworks.core.routing import Preferences
from tokenworks.protocols import codec
from tokenworks.protocols.carried import lost
from tokenworks.snapshot.records import TargetRecord, UpstreamRecord


def exclusion(
    request: Request,
    caller: Caller,
    target: TargetRecord,
    upstream: UpstreamRecord,
    price: Tariff,
    now: float,
) -> str | None:
    """The first reason against this target; None: it may answer."""
    if upstream.state != "ready":
        return f"is {upstream.state}{f': {upstream.reason}' if upstream.reason else ''}"
    if caller.regions is not None and upstream.region not in caller.regions:
        return f"is in {upstream.region or 'an unknown region'}, and the API key allows {_several(caller.regions)}"
    wanted = request.routing
    if wanted is not None:
        for reason in _unwanted(wanted, target, upstream, price, now):
            return reason
        if wanted.require_parameters:
            for reason in _unsupported(request, target, upstream):
                return reason
    return None


def _unwanted(
    wanted: Preferences, target: TargetRecord, upstream: UpstreamRecord, price: Tariff, now: float
) -> Iterator[str]:
    provider = upstream.provider
    if wanted.only and provider not in wanted.only:
        yield f"is not among the only providers {_several(wanted.only)}"
    if provider in wanted.ignore:
        yield "is to be ignored"
    if not wanted.allow_fallbacks and wanted.order and provider not in wanted.order:
        yield f"is not in the order {_several(wanted.order)}, and fallbacks are not allowed"
    if wanted.regions and upstream.region not in wanted.regions:
        yield f"is in {upstream.region or 'an unknown region'}, not in {_several(wanted.regions)}"
    if wanted.zdr and upstream.retention != 0:
        kept = "nobody states how long it keeps data" if upstream.retention is None else f"keeps {upstream.retention} s"
        yield f"is not known to keep nothing: {kept}"
    if wanted.deny_data_collection and upstream.trains is not False:
        yield "may learn from what it gets" if upstream.trains else "nobody states that it does not learn from it"
    quantization = target.quantization or upstream.quantization
    if wanted.quantizations and not set(quantization.split(",")) <= set(wanted.quantizations):
        yield f"runs {quantization or 'an unknown quantization'}, not {_several(wanted.quantizations)}"
    if wanted.max_price and (version := price.at(now)) is not None:
        for kind, most in wanted.max_price.items():
            if version.rate(kind) > most:
                yield f"costs more for {kind} than max_price allows"


def _unsupported(request: Request, target: TargetRecord, upstream: UpstreamRecord) -> Iterator[str]:
    able = target.capabilities if target.capabilities is not None else upstream.capabilities
    for capability in needed(request):
        if able is not None and capability not in able:
            yield f"cannot do {capability}"
    if request.protocol not in upstream.protocols:
        spoken = next(
            (each for name in upstream.protocols if isinstance(request.task, (each := codec(name)).tasks)), None
        )
        if spoken is None:
            yield "does not take such a task"
        elif missing := lost(request, spoken):
            yield f"would not honour {_several(missing)}"


def _several(names: Iterable[str]) -> str:
    return ", ".join(sorted(names) if isinstance(names, frozenset) else names)
