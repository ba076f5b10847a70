"""The gateway's composition root: builds the parts, runs them, drains them."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from tokenworks.client import Address, Client
from tokenworks.gateway.admission.keys import Keys
from tokenworks.gateway.admission.limits.admit import Admission
from tokenworks.gateway.admission.limits.base import LimitStore
from tokenworks.gateway.admission.limits.memory import MemoryStore
from tokenworks.gateway.admission.limits.unshipped import Unshipped
from tokenworks.gateway.admission.limits.valkey import ValkeyStore
from tokenworks.gateway.admission.residency import Here
from tokenworks.gateway.answers.catalog import Catalog
from tokenworks.gateway.answers.completions import PATH as COMPLETIONS
from tokenworks.gateway.answers.completions import PREFIX as COMPLETIONS_PREFIX
from tokenworks.gateway.answers.completions import Completions
from tokenworks.gateway.answers.intake import Intake
from tokenworks.gateway.answers.predictions import DEPLOYMENTS, Predictions
from tokenworks.gateway.answers.predictions import PATH as PREDICTIONS
from tokenworks.gateway.answers.predictions import PREFIX as PREDICTIONS_PREFIX
from tokenworks.gateway.answers.responses import INPUT_TOKENS, Responses
from tokenworks.gateway.answers.responses import PREFIX as RESPONSES_PREFIX
from tokenworks.gateway.answers.runs import Runs
from tokenworks.gateway.answers.store import AnswerStore
from tokenworks.gateway.batches.line import Serve
from tokenworks.gateway.batches.runner import BatchRunner
from tokenworks.gateway.caching.cached import Cached
from tokenworks.gateway.caching.embedding import embedding
from tokenworks.gateway.caching.similar import Similar
from tokenworks.gateway.caching.stores import cache_store
from tokenworks.gateway.edge import receipts, stored
from tokenworks.gateway.edge.addresses import Network, networks
from tokenworks.gateway.edge.asgi import Answer, Edge, Handler
from tokenworks.gateway.edge.count_tokens import PATH as COUNT_PATH
from tokenworks.gateway.edge.count_tokens import CountTokens
from tokenworks.gateway.edge.delivery import EdgeLimits
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.edge.forward import PREFIXES, Forward
from tokenworks.gateway.edge.health import Health
from tokenworks.gateway.edge.http import GuardedProtocol
from tokenworks.gateway.edge.models import PREFIX as MODEL_PREFIX
from tokenworks.gateway.edge.models import Models
from tokenworks.gateway.edge.surfaces import EMBEDDINGS, SURFACES
from tokenworks.gateway.edge.tokenize import PATH as TOKENIZE_PATH
from tokenworks.gateway.edge.tokenize import Tokenize
from tokenworks.gateway.failover.attempts import Attempts
from tokenworks.gateway.failover.health import Health as Standings
from tokenworks.gateway.failover.pauses import SharedPauses
from tokenworks.gateway.failover.prober import Prober
from tokenworks.gateway.guardrails.guardrails import Guardrails
from tokenworks.gateway.metering.attempt import Meter
from tokenworks.gateway.pipeline import Pipeline
from tokenworks.gateway.routing.explain import PATH as EXPLAIN_PATH
from tokenworks.gateway.routing.explain import Explain
from tokenworks.gateway.routing.held import Held
from tokenworks.gateway.routing.plan import Facts
from tokenworks.gateway.routing.planner import Planner
from tokenworks.gateway.settings import Settings
from tokenworks.gateway.shadows import Shadows
from tokenworks.gateway.upstreams.counting import count_tokens
from tokenworks.gateway.upstreams.http import Upstreams
from tokenworks.gateway.upstreams.kv_events import KVListeners
from tokenworks.gateway.upstreams.probe import Probe
from tokenworks.journal.directory import JournalLocked
from tokenworks.journal.shipper import Shipper
from tokenworks.journal.writer import Journal, JournalSettings
from tokenworks.protocols import codec
from tokenworks.protocols.base import Codec
from tokenworks.snapshot.residency import CACHE, JOURNAL, LIMITS, LOGS
from tokenworks.snapshot.sealing import internal_token, read_cluster_key
from tokenworks.snapshot.subscriber import Subscriber
from tokenworks.telemetry.logs import configure
from tokenworks.telemetry.metrics import Metrics

log = logging.getLogger("tokenworks.gateway")


COLLECT_EVERY = (20_000, 10, 5)
"""See gc.set_threshold. Python's own 700 objects are what sixteen requests hold at once, and so no sign of garbage."""


class CannotStart(Exception):
    """One line for the terminal: what is wrong and what to do."""


class Gateway:
    """All parts of one gateway process. `app` is its ASGI application."""

    def __init__(self, settings: Settings, cluster_key: bytes, journal: Journal) -> None:
        metrics = Metrics()
        control = Address.parse(settings.control)
        self._client = Client(control, token=internal_token(cluster_key))
        self._journal = journal
        self._upstreams = Upstreams(cluster_key, [host for host in settings.image_hosts.split(",") if host])
        held = Held()
        self._listeners = KVListeners(self._upstreams, held)
        self._snapshot = Subscriber(self._client, settings.data_dir / "snapshot.bin", on_change=self._listeners.changed)
        self._shipper = Shipper(journal, self._client)
        self._forward = Forward(control)
        keys = Keys(self._snapshot, _proxies(settings.trusted_proxies))
        models = Models(self._snapshot, keys)
        limits = EdgeLimits(body_bytes=settings.body_limit, keep_alive=settings.keep_alive, padding=settings.padding)
        shared = _limit_store(settings.limits, settings.limits_timeout)
        unshipped = Unshipped(journal.gateway_id, journal.kept())
        self._admission = Admission(
            self._snapshot,
            shared,
            unshipped,
            journal.gateway_id,
            wait=settings.limits_wait,
            counter=lambda state, request, target: count_tokens(
                self._upstreams, request, state.upstreams[target.upstream], target
            ),
        )
        self._health = Health(self._snapshot, journal, Probe(self._upstreams), self._admission, metrics)
        standings = Standings()
        self._prober = Prober(standings, Probe(self._upstreams), lambda: self._snapshot.state)
        self._pauses, keyring = None, self._upstreams.keyring
        if settings.limits != "memory":
            self._pauses = SharedPauses(standings, keyring, settings.limits, settings.limits_timeout)
        where = settings.limits if settings.cache == "limits" else settings.cache
        facts = Facts(self._upstreams.in_flight, standings, here=_here(settings, where), held=held)
        planner = Planner(facts)
        meter = Meter(journal, metrics)
        self._guardrails = Guardrails(cluster_key, meter)
        attempts = Attempts(self._upstreams, meter, standings, planner.answered)
        store = cache_store(where, settings.limits_timeout, settings.cache_bytes)
        self._cache = Cached(attempts, store, cluster_key)
        self._shadows = Shadows(
            self._snapshot, self._admission, cluster_key, journal, metrics, facts.here, self._guardrails
        )
        pipeline = Pipeline(
            self._snapshot, keys, self._admission, planner, self._cache, self._shadows, limits, self._guardrails
        )
        embed = embedding(pipeline.serve, codec(SURFACES[EMBEDDINGS]), EMBEDDINGS)
        self._cache.similar = Similar(store, embed)
        pages: dict[tuple[str, str], Handler] = {
            ("GET", "/healthz"): self._health.healthz,
            ("GET", "/readyz"): self._health.readyz,
            ("GET", "/metrics"): self._health.metrics,
            ("GET", "/health"): self._health.readyz,
            ("GET", "/info"): models.info,
            ("GET", "/v1/models"): models.list,
            ("POST", "/v1/moderations"): models.moderations,
            ("POST", COUNT_PATH): CountTokens(
                self._snapshot, keys, planner, self._upstreams, self._guardrails, settings.body_limit
            ),
            ("POST", EXPLAIN_PATH): Explain(
                self._snapshot, keys, self._admission, facts, SURFACES, settings.body_limit
            ),
            ("POST", TOKENIZE_PATH): Tokenize(
                self._snapshot, keys, planner, self._upstreams, self._guardrails, settings.body_limit
            ),
        }
        messages = codec(SURFACES[stored.MESSAGES])
        self._stored = stored.Stored(control, cluster_key, keys, messages, self._snapshot)
        prefixes: dict[str, Handler] = {MODEL_PREFIX: models.retrieve}
        for prefix in (*stored.PREFIXES, stored.MESSAGE_PREFIX):
            prefixes[prefix] = self._stored
        for prefix in PREFIXES:
            prefixes[prefix] = self._forward
        prefixes[stored.RECEIPTS] = receipts.receipts(self._stored, self._forward)
        kept = AnswerStore(self._client)
        self._runs = Runs(kept)
        self._drain_seconds = settings.drain_seconds
        intake = Intake(pipeline, keys, self._snapshot, planner, self._upstreams, limits)
        responses = Responses(intake, kept, self._runs)
        catalog = Catalog(intake, cluster_key)
        predictions = Predictions(intake, kept, self._runs, catalog)
        completions = Completions(intake, kept)
        pipeline.keep = completions.keep
        pages["GET", COMPLETIONS] = completions.list
        prefixes[COMPLETIONS_PREFIX] = completions.below
        pages["POST", INPUT_TOKENS] = responses.input_tokens
        prefixes[RESPONSES_PREFIX] = responses.below
        self._predictions(predictions, catalog, models, pages, prefixes)
        surfaces: dict[str, tuple[Codec, Serve]] = {
            path: (codec(name), responses.serve if name == "openai_responses" else pipeline.serve)
            for path, name in SURFACES.items()
        }
        self._batches = BatchRunner(self._client, journal, keys, pipeline, surfaces, settings.batch_concurrency)
        keeping: dict[str, Answer] = {"openai_responses": responses.create, "replicate": predictions.create}

        async def answer(exchange: Exchange, codec: Codec) -> None:
            await keeping.get(codec.name, pipeline.answer)(exchange, codec)

        self.app = Edge(answer, SURFACES, pages, prefixes, metrics)

    def _predictions(
        self,
        predictions: Predictions,
        catalog: Catalog,
        models: Models,
        pages: dict[tuple[str, str], Handler],
        prefixes: dict[str, Handler],
    ) -> None:
        """Paths that clients of predictions call, some of which others call too."""

        async def model(exchange: Exchange) -> None:
            if exchange.method == "POST":
                await predictions.create_for(exchange, MODEL_PREFIX)
            else:
                await retrieve(exchange)

        async def deployment(exchange: Exchange) -> None:
            await predictions.create_for(exchange, DEPLOYMENTS)

        retrieve = catalog.beside(models.retrieve, catalog.model)
        pages |= {
            ("POST", PREDICTIONS): predictions.create,
            ("GET", PREDICTIONS): predictions.list,
            ("GET", "/v1/models"): catalog.beside(models.list, catalog.models),
            ("QUERY", "/v1/models"): catalog.search,
            ("GET", "/v1/account"): catalog.account,
            ("GET", "/v1/hardware"): catalog.hardware,
            ("GET", "/v1/webhooks/default/secret"): catalog.secret,
        }
        prefixes |= {MODEL_PREFIX: model, PREDICTIONS_PREFIX: predictions.below, DEPLOYMENTS: deployment}

    def start(self) -> None:
        self._snapshot.start()
        self._admission.start()
        self._shipper.start()
        self._batches.start()
        if self._pauses is not None:
            self._pauses.start()

    def drain(self) -> None:
        """From now on /readyz says no, so that balancers send nothing new."""
        self._health.draining = True
        self._batches.drain()

    async def stop(self) -> None:
        await self._batches.stop()
        await self._runs.stop(self._drain_seconds)
        await self._shadows.stop()
        await self._admission.close()
        await self._cache.close()
        await self._guardrails.close()
        await self._prober.stop()
        if self._pauses is not None:
            await self._pauses.stop()
        await self._shipper.drain(timeout=2.0)
        await self._shipper.stop()
        await self._snapshot.stop()
        await self._listeners.stop()  # nobody tells them of changes any more
        await self._upstreams.close()
        await self._forward.close()
        await self._stored.close()
        await self._client.close()
        await self._journal.close()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain. CannotStart with one line when that is not possible."""
    configure("gateway", settings.log_level)
    listener = _listen(settings)
    try:
        cluster_key = read_cluster_key(settings.cluster_key_file)
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal = Journal.open(settings.data_dir / "journal", JournalSettings(durability=settings.durability))
        gateway = Gateway(settings, cluster_key, journal)
    except (OSError, ValueError, JournalLocked) as error:
        raise CannotStart(str(error)) from error
    protocol = type("Protocol", (GuardedProtocol,), {"header_seconds": settings.header_seconds})
    config = uvicorn.Config(
        gateway.app,
        http=protocol,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(settings.drain_seconds),
        backlog=2048,
    )
    server = _Server(config, gateway)
    gateway.start()
    _spare_collector()
    log.info("listening on http://%s:%d", settings.host, settings.port)
    try:
        await server.serve(sockets=[listener])
    finally:
        await gateway.stop()


class _Server(uvicorn.Server):
    """Uvicorn with our own signals: the first drains, the second ends at once."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        yield

    def _on_signal(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._gateway.drain()


def _spare_collector() -> None:
    """Requests leave nothing in circles, so they are freed as they end. The garbage collector is for what slips
    through: it looks seldom, and not at what start-up made, which lasts as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)


def _proxies(text: str) -> tuple[Network, ...]:
    try:
        return networks(tuple(each.strip() for each in text.split(",") if each.strip()))
    except ValueError as error:
        raise ValueError(f"--trusted-proxies: {error}") from error


def _here(settings: Settings, cache: str) -> Here:
    kept = {LIMITS: settings.limits, CACHE: cache}
    in_memory = tuple(name for name, where in kept.items() if where == "memory")
    return Here(settings.region, settings.jurisdiction, (JOURNAL, LOGS, *in_memory))


def _limit_store(where: str, timeout: float) -> LimitStore:
    """`memory`, or the URL of a Valkey/Redis server. ValueError when it is neither."""
    if where == "memory":
        return MemoryStore()
    return ValkeyStore(where, timeout=timeout)


def _listen(settings: Settings) -> socket.socket:
    try:
        family = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; "
            "choose another with --host and --port"
        ) from error
    listener.listen(2048)
    return listener


def main(settings: Settings) -> int:
    try:
        import uvloop
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    try:
        with runner:
            runner.run(run(settings))
    except CannotStart as error:
        print(f"tokenworks gateway: {error}", file=sys.stderr)
        return 2
    return 0
