"""The gateway's metrics, in Prometheus' format. Labels are bounded: models of the snapshot, protocols, error codes."""

from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_GAPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)


T = TypeVar("T", Counter, Histogram)


class _Labelled(Generic[T]):
    """A metric with labels. Its children are kept here, too: to find one in prometheus_client takes a lock and a copy
    of its labels, seven times a request."""

    def __init__(self, metric: T) -> None:
        self._metric: T = metric
        self._children: dict[tuple[str, ...], T] = {}

    def labels(self, *values: str) -> T:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._metric.labels(*values)
        return child


class Metrics:
    """One registry per process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = _Labelled(
            Counter("tokenworks_requests", "Requests answered", ["model", "protocol", "status"], registry=registry)
        )
        self.tokens = _Labelled(Counter("tokenworks_tokens", "Tokens metered", ["model", "kind"], registry=registry))
        self.errors = _Labelled(Counter("tokenworks_errors", "Errors answered, by cause", ["code"], registry=registry))
        self.attempts = _Labelled(
            Counter("tokenworks_attempts", "Attempts on upstreams", ["model", "provider", "outcome"], registry=registry)
        )
        self.shadows = _Labelled(Counter(
            "tokenworks_shadows", "Copies of requests, by the alias that had them made", ["alias", "outcome"],
            registry=registry,
        ))  # fmt: skip
        self.disputes = _Labelled(
            Counter(
                "tokenworks_usage_disputes",
                "Attempts whose reported usage differs from our own count, or cannot be true",
                ["model", "provider", "reason"],
                registry=registry,
            )
        )
        self.guardrails = _Labelled(
            Counter(
                "tokenworks_guardrails",
                "What guardrails found and did",
                ["guardrail", "phase", "action", "entity"],
                registry=registry,
            )
        )
        self.time_to_first_token = _Labelled(
            Histogram(
                "tokenworks_time_to_first_token_seconds",
                "From the request's arrival to its first output",
                ["model"],
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self.inter_token_latency = _Labelled(
            Histogram(
                "tokenworks_inter_token_latency_seconds",
                "Mean gap between pieces of output, one sample per answer",
                ["model"],
                buckets=_GAPS,
                registry=registry,
            )
        )
        self.queue_time = _Labelled(
            Histogram(
                "tokenworks_queue_time_seconds",
                "From the request's arrival until it left for an upstream",
                ["model"],
                buckets=_GAPS,
                registry=registry,
            )
        )
        self.duration = _Labelled(
            Histogram(
                "tokenworks_request_duration_seconds",
                "From the request's arrival to its last byte",
                ["model"],
                buckets=_SECONDS,
                registry=registry,
            )
        )
        self.in_flight = Gauge("tokenworks_in_flight_requests", "Requests being answered", registry=registry)
        self.control_connected = Gauge("tokenworks_control_connected", "1 while control is followed", registry=registry)
        self.snapshot_revision = Gauge("tokenworks_snapshot_revision", "Revision in force", registry=registry)
        self.limits_degraded = Gauge(
            "tokenworks_limits_degraded", "1 while the limit store cannot decide", registry=registry
        )
        self.journal_unshipped = Gauge(
            "tokenworks_journal_unshipped_records", "Journal records control has not acknowledged", registry=registry
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
