"""A prediction's record and how it changes: what callers get, what is stored, what webhooks carry. Pure."""

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from tokenworks.core.errors import TokenworksError
from tokenworks.core.events import Event, ReasoningDelta, Started, TextDelta, UsageReport

Status = Literal["starting", "processing", "succeeded", "failed", "canceled"]
FINAL = frozenset({"succeeded", "failed", "canceled"})


class Prediction(msgspec.Struct):
    """Times are RFC 3339. `output` is the pieces of text as they came; a model's reasoning goes to `logs`."""

    id: str
    model: str
    version: str
    input: dict[str, Any]
    created_at: str
    urls: dict[str, str] = {}
    status: Status = "starting"
    output: list[str] | None = None
    logs: str = ""
    error: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    metrics: dict[str, Any] = {}
    data_removed: bool = False
    source: str = "api"

    @property
    def final(self) -> bool:
        return self.status in FINAL

    def begin(self, now: float) -> None:
        """The model works on it since `now` (Unix seconds)."""
        self.status = "processing"
        self.started_at = moment(now)

    def see(self, event: Event) -> None:
        """Take in what the model says. Its finish and its failure are told by `succeed` and `fail`."""
        match event:
            case TextDelta():
                if self.output is None:
                    self.output = []
                self.output.append(event.text)
            case ReasoningDelta():
                self.logs += event.text
            case UsageReport(usage):
                counts = {"input_token_count": usage.prompt, "output_token_count": usage.output}
                self.metrics = self.metrics | counts
            case Started(model=model) if model and not self.model:
                self.model = model

    def succeed(self, now: float) -> None:
        self._end("succeeded", now)
        self.output = self.output or []

    def fail(self, error: TokenworksError, now: float) -> None:
        self.error = error.message
        self._end("failed", now)

    def cancel(self, now: float) -> None:
        self._end("canceled", now)

    def remove_data(self) -> None:
        """Forget what the caller gave and got; that it was there stays."""
        self.input, self.output, self.logs, self.data_removed = {}, None, "", True

    def _end(self, status: Status, now: float) -> None:
        self.status = status
        self.completed_at = moment(now)
        times = {"total_time": _between(self.created_at, now)}
        if self.started_at is not None:
            times["predict_time"] = _between(self.started_at, now)
        self.metrics = self.metrics | times


def urls(base_url: str, prediction: str) -> dict[str, str]:
    """`base_url` is the caller's way to this service, without a trailing slash."""
    own = f"{base_url}/v1/predictions/{prediction}"
    return {"get": own, "cancel": f"{own}/cancel", "stream": f"{own}/stream", "web": f"{base_url}/p/{prediction}"}


def moment(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _between(earlier: str, now: float) -> float:
    return round(max(now - datetime.fromisoformat(earlier).timestamp(), 0.0), 3)
