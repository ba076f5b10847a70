"""What an operator sees of the engine: histograms by priority, gauges of the scheduler."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tokenworks.worker.engines.llama.disk import Disk
from tokenworks.worker.engines.llama.scheduling.scheduler import Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Priority, Sequence

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PREFIX = "tokenworks_engine_"
NAMES = {priority: priority.name.lower() for priority in Priority}


class Observed:
    """`queued`, `first` and `between` are called with seconds; `step` after each forward pass."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._registry = registry = CollectorRegistry()

        def by_priority(name: str, text: str) -> dict[int, Histogram]:
            family = Histogram(PREFIX + name, text, ["priority"], buckets=SECONDS, registry=registry)
            return {priority: family.labels(label) for priority, label in NAMES.items()}

        self._queued = by_priority("queue_seconds", "From arrival to the first slot")
        self._first = by_priority("first_token_seconds", "From arrival to the first token")
        self._between = by_priority("inter_token_seconds", "Between two tokens of a sequence")
        self._sequences = Histogram(PREFIX + "batch_sequences", "In a step", buckets=COUNTS, registry=registry)
        self._tokens = Histogram(PREFIX + "step_tokens", "Tokens of a step", buckets=COUNTS, registry=registry)
        self._seconds = Histogram(PREFIX + "step_seconds", "Duration of a step", buckets=SECONDS, registry=registry)
        self._refused = Counter(PREFIX + "refused", "Requests that found the queue full", registry=registry)

        gauge = self._gauge
        counts, prefixes = scheduler.counts, scheduler.prefixes
        gauge("running_sequences", "In a slot", lambda: len(scheduler.running))
        gauge("waiting_sequences", "In the queue", lambda: scheduler.waiting)
        gauge("kv_used_tokens", "Tokens in the slots", lambda: sum(s.computed for s in list(scheduler.running)))
        gauge("cache_used_bytes", "Keys and values beside the slots", lambda: prefixes.used)
        gauge("cache_limit_bytes", "The most of them", lambda: prefixes.memory)
        gauge("prompt_tokens", "Prompt tokens since the start", lambda: counts.prompts)
        gauge("cached_prompt_tokens", "Those that came from the cache", lambda: counts.cached)
        gauge("preemptions", "Slots given up since the start", lambda: counts.preemptions)
        gauge("computed_tokens", "Since the start", lambda: counts.tokens)
        gauge("steps", "Since the start", lambda: counts.steps)

    def disk(self, disk: Disk) -> None:
        self._gauge("disk_used_bytes", "Keys and values in files", lambda: disk.used)
        self._gauge("disk_limit_bytes", "The most of them", lambda: disk.limit)
        self._gauge("disk_read_tokens", "Tokens that came from files since the start", lambda: disk.tokens_read)

    def _gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        Gauge(PREFIX + name, text, registry=self._registry).set_function(value)

    def render(self) -> str:
        return generate_latest(self._registry).decode()

    def step(self, sequences: int, tokens: int, seconds: float) -> None:
        self._sequences.observe(sequences)
        self._tokens.observe(tokens)
        self._seconds.observe(seconds)

    def token(self, sequence: Sequence, now: float, last: float) -> None:
        """`last`: when its token before came; 0 for its first one."""
        if last:
            self._between[sequence.priority].observe(now - last)
        else:
            self._queued[sequence.priority].observe(sequence.started - sequence.arrived)
            self._first[sequence.priority].observe(now - sequence.arrived)

    def refused(self) -> None:
        self._refused.inc()
