"""/healthz (this process runs), /readyz (the default model answers) and /metrics."""

import asyncio
import time
from typing import Any

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.core.needs import task_of
from tokenworks.gateway.admission.limits.admit import Admission
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.upstreams.probe import Probe
from tokenworks.journal.writer import Journal
from tokenworks.snapshot.records import ModelRecord
from tokenworks.snapshot.subscriber import Subscriber
from tokenworks.telemetry.metrics import CONTENT_TYPE, Metrics

REMEMBER_SECONDS = 2.0
REMEMBER_FAILURE_SECONDS = 0.2
"""Who waits for the start wants to know at once; a failing probe still costs little at five a second."""
_ENCODE = msgspec.json.Encoder().encode


class Health:
    def __init__(
        self, snapshot: Subscriber, journal: Journal, probe: Probe, admission: Admission, metrics: Metrics
    ) -> None:
        self._snapshot = snapshot
        self._journal = journal
        self._probe = probe
        self._admission = admission
        self._metrics = metrics
        self._checked = 0.0
        self._model: dict[str, Any] = {}
        self._lock = asyncio.Lock()
        self.draining = False

    async def healthz(self, exchange: Exchange) -> None:
        await exchange.respond(200, b'{"status":"ok"}')

    async def readyz(self, exchange: Exchange) -> None:
        async with self._lock:
            remember = REMEMBER_SECONDS if self._model.get("ok") else REMEMBER_FAILURE_SECONDS
            if time.monotonic() - self._checked > remember:
                self._model = await self._default_model()
                self._checked = time.monotonic()
        snapshot, journal = self._snapshot, self._journal
        components = {
            "model": self._model,
            "control": {"ok": snapshot.connected, "revision": snapshot.state.revision},
            "journal": {"ok": not journal.full, "unshipped": journal.end - journal.acknowledged},
            "limits": {"ok": not self._admission.degraded},
            "draining": self.draining,
        }
        if journal.full:
            components["journal"] = {"ok": False, "reason": journal.full}
        if self._admission.degraded:
            components["limits"] = {"ok": False, "reason": self._admission.degraded}
        ready = bool(self._model.get("ok")) and not journal.full and not self.draining
        degraded = ready and (not snapshot.connected or bool(self._admission.degraded))
        status = "degraded" if degraded else "ready" if ready else "not ready"
        await exchange.respond(200 if ready else 503, _ENCODE({"status": status, "components": components}))

    async def metrics(self, exchange: Exchange) -> None:
        metrics = self._metrics
        metrics.control_connected.set(self._snapshot.connected)
        metrics.snapshot_revision.set(self._snapshot.state.revision)
        metrics.limits_degraded.set(bool(self._admission.degraded))
        metrics.journal_unshipped.set(self._journal.end - self._journal.acknowledged)
        await exchange.respond(200, metrics.render(), content_type=CONTENT_TYPE)

    async def _default_model(self) -> dict[str, Any]:
        model = _default(list(self._snapshot.state.models.values()))
        if model is None:
            return {"ok": False, "reason": "no model is known yet"}
        upstreams = [self._snapshot.state.upstreams.get(target.upstream) for target in model.targets]
        known = [upstream for upstream in upstreams if upstream is not None]
        replicas = [{"id": each.id, "state": each.state, "reason": each.reason} for each in known]
        found: dict[str, Any] = {"name": model.name, "upstreams": replicas}
        ready = [(t, u) for t, u in zip(model.targets, upstreams, strict=True) if u is not None and u.state == "ready"]
        if not ready:
            return found | {"ok": False, "reason": "no upstream of the default model is ready"}
        target, upstream = ready[0]
        if not upstream.local:
            # A provider's answer costs money: its configuration is all that is checked here.
            return found | {"ok": True, "probed": False}
        try:
            await self._probe.ask(upstream, target.model, task_of(model.capabilities))
        except TokenworksError as error:
            return found | {"ok": False, "reason": error.message}
        return found | {"ok": True, "probed": True}


def _default(models: list[ModelRecord]) -> ModelRecord | None:
    chosen = [model for model in models if model.default] or models
    return chosen[0] if chosen else None
