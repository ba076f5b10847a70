"""What an operator sees of the engine: histograms and counts by priority, gauges of the scheduler."""

from collections import Counter as Tally
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tokenworks.worker.engines.llama.disk import Disk
from tokenworks.worker.engines.llama.drafting.drafter import Drafter
from tokenworks.worker.engines.llama.scheduling.scheduler import ClassCounts, Scheduler
from tokenworks.worker.engines.llama.scheduling.sequence import Priority, Sequence

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PREFIX = "tokenworks_engine_"
NAMES = {priority: priority.name.lower() for priority in Priority}
BY_PRIORITY: dict[str, tuple[str, Callable[[ClassCounts], int]]] = {
    "computed_tokens": ("Of prompts and answers", lambda counts: counts.tokens),
    "prompt_tokens": ("Of prompts that got a slot", lambda counts: counts.prompts),
    "cached_prompt_tokens": ("Those that came from the cache", lambda counts: counts.cached),
    "preemptions": ("Slots given up", lambda counts: counts.preemptions),
}


class _Scheduled(Collector):
    """What the scheduler counts itself."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        scheduler = self._scheduler
        yield CounterMetricFamily(PREFIX + "steps", "Forward passes", scheduler.counts.steps)
        for name, (text, count) in BY_PRIORITY.items():
            counter = CounterMetricFamily(PREFIX + name, text, labels=["priority"])
            for priority, label in NAMES.items():
                counter.add_metric([label], count(scheduler.counts.classes[priority]))
            yield counter
        running = Tally(sequence.priority for sequence in list(scheduler.running))
        gauge = GaugeMetricFamily(PREFIX + "running_sequences", "In a slot", labels=["priority"])
        for priority, label in NAMES.items():
            gauge.add_metric([label], running[priority])
        yield gauge


class _Guessed(Collector):
    def __init__(self, drafter: Drafter) -> None:
        self._drafter = drafter

    def collect(self) -> Iterator[Metric]:
        for name, text, counts in (
            ("drafted_tokens", "Guesses that were checked", self._drafter.drafted),
            ("accepted_tokens", "Those of them that came true", self._drafter.accepted),
        ):
            counter = CounterMetricFamily(PREFIX + name, text, labels=["kind"])
            for kind, count in counts.items():
                counter.add_metric([kind], count)
            yield counter


class Observed:
    """`step` is called after each forward pass, `token` for what it brought each sequence. `room`: tokens that all
    slots together hold."""

    def __init__(self, scheduler: Scheduler, room: int) -> None:
        self._registry = registry = CollectorRegistry()
        self._scheduler, self._room = scheduler, room
        registry.register(_Scheduled(scheduler))

        def by_priority(name: str, text: str, buckets: tuple[float, ...] = SECONDS) -> dict[int, Histogram]:
            family = Histogram(PREFIX + name, text, ["priority"], buckets=buckets, registry=registry)
            return {priority: family.labels(label) for priority, label in NAMES.items()}

        self._queued = by_priority("queue_seconds", "From arrival to the first slot")
        self._first = by_priority("first_token_seconds", "From arrival to the first token")
        self._between = by_priority("inter_token_seconds", "Between two tokens of a sequence")
        self._cached = by_priority("prompt_cached_share", "Of a prompt's tokens, from the cache", SHARES)
        self._used = Histogram(PREFIX + "kv_used_share", "Of the slots, in a step", buckets=SHARES, registry=registry)
        self._sequences = Histogram(PREFIX + "batch_sequences", "In a step", buckets=COUNTS, registry=registry)
        self._tokens = Histogram(PREFIX + "step_tokens", "Tokens of a step", buckets=COUNTS, registry=registry)
        self._seconds = Histogram(PREFIX + "step_seconds", "Duration of a step", buckets=SECONDS, registry=registry)
        family = Counter(PREFIX + "refused", "Requests that found the queue full", ["priority"], registry=registry)
        self._refused: dict[int, Counter] = {priority: family.labels(label) for priority, label in NAMES.items()}
        self._given_up = Counter(PREFIX + "given_up_steps", "Stopped for a newcomer", registry=registry)

        gauge = self._gauge
        prefixes = scheduler.prefixes
        gauge("waiting_sequences", "In the queue", lambda: scheduler.waiting)
        gauge("kv_used_tokens", "Tokens in the slots", self._in_slots)
        gauge("kv_limit_tokens", "The most of them", lambda: room)
        gauge("cache_used_bytes", "Keys and values beside the slots", lambda: prefixes.used)
        gauge("cache_limit_bytes", "The most of them", lambda: prefixes.memory)

    def guesses(self, drafter: Drafter) -> None:
        self._registry.register(_Guessed(drafter))
        self._gauge("lookup_used_bytes", "What requests of a key share to guess from", lambda: drafter.tables.used)

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
        self._used.observe(self._in_slots() / self._room)

    def tokens(self, sequence: Sequence, count: int, now: float, last: float) -> None:
        """So many came at once. `last`: when its token before came; 0 for its first one."""
        priority = sequence.priority
        if not last:
            self._queued[priority].observe(sequence.started - sequence.arrived)
            self._first[priority].observe(now - sequence.arrived)
            self._cached[priority].observe(sequence.cached / sequence.prompt)
            return
        for _ in range(count):
            self._between[priority].observe((now - last) / count)

    def given_up(self) -> None:
        self._given_up.inc()

    def refused(self, priority: int) -> None:
        self._refused[priority].inc()

    def _in_slots(self) -> int:
        return sum(sequence.computed for sequence in list(self._scheduler.running))
