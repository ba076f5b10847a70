"""Composition root of control: what there is, in which order it starts, and how it stops."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp

from tokenworks import __version__
from tokenworks.config import ConfigError, Configuration, load
from tokenworks.config.catalog import known_providers
from tokenworks.config.records import AliasConfig
from tokenworks.control import errors, internal, settings
from tokenworks.control.admin import receipts, routes
from tokenworks.control.aliases import book as alias_book
from tokenworks.control.answers import router as answers_router
from tokenworks.control.answers import webhook_endpoints
from tokenworks.control.answers.service import Answers
from tokenworks.control.answers.webhooks import Webhooks
from tokenworks.control.batches import messages
from tokenworks.control.batches import routes as batches_routes
from tokenworks.control.batches import together as together_batches
from tokenworks.control.batches.service import Objects
from tokenworks.control.bootstrap import bootstrap
from tokenworks.control.budgets.watch import Budgets
from tokenworks.control.files import anthropic as anthropic_files
from tokenworks.control.files import replicate as replicate_files
from tokenworks.control.files import routes as files_routes
from tokenworks.control.files import together as together_files
from tokenworks.control.fleet import Fleet
from tokenworks.control.guard import Guard
from tokenworks.control.guardrails import guardrails
from tokenworks.control.ingest.journal import JournalIngest
from tokenworks.control.leading import Leadership
from tokenworks.control.ledger import signing
from tokenworks.control.ledger.payments.meter import Meter
from tokenworks.control.ledger.payments.stripe import Stripe
from tokenworks.control.listening import bound, exclusive
from tokenworks.control.objects.directory import DirectoryStore
from tokenworks.control.objects.s3 import S3Store
from tokenworks.control.objects.store import ObjectStore
from tokenworks.control.offers import Offer, costs, endpoints, offers
from tokenworks.control.pricing import book
from tokenworks.control.publishing import Announcer
from tokenworks.control.residency import misplaced, sinks, unanswerable
from tokenworks.control.services import Services
from tokenworks.control.settings import Settings
from tokenworks.control.startup import StartupError
from tokenworks.control.storage import (
    api_keys,
    caches,
    fleet,
    limits,
    migrate,
    partitions,
    prices,
    provider_keys,
    residency,
    rollup,
)
from tokenworks.control.storage.database import Database, describe, sqlite_url
from tokenworks.control.upkeep import Upkeep
from tokenworks.core.clock import Clock, SystemClock
from tokenworks.models import WeightsError, load_catalog
from tokenworks.protocols import PROTOCOLS
from tokenworks.snapshot.publisher import Publisher
from tokenworks.snapshot.records import AliasRecord, ResidencyRecord, UpstreamRecord
from tokenworks.snapshot.sealing import ensure_cluster_key, internal_token
from tokenworks.telemetry import logs

CANNOT_START = 2
INTERRUPTED = 130
EXPIRY_SECONDS = 0.5
DRAIN_SECONDS = 5

log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process's exit code: 0 after a graceful stop, 2 when it cannot start (one line on stderr says why)."""
    os.umask(0o077)  # the database holds digests of keys and what each tenant did
    try:
        chosen = settings.read(arguments)
        logs.configure("control", chosen.log_level)
        with exclusive(chosen.data_dir), bound(chosen.listen) as listener:
            asyncio.run(_run(chosen, listener))
    except StartupError as error:
        print(f"tokenworks control: {error}", file=sys.stderr)
        return CANNOT_START
    except KeyboardInterrupt:  # while starting; later it is a graceful stop
        return INTERRUPTED
    return 0


async def _run(chosen: Settings, listener: socket.socket) -> None:
    cluster_key = _cluster_key(chosen)
    configuration = _configuration(chosen)
    offered = _offers(chosen, configuration)
    upstreams = endpoints(configuration, cluster_key, chosen.environment)
    database = Database(chosen.database or sqlite_url(chosen.data_dir / "control.db"))
    try:
        leadership = await _in_charge(database)
        services = await _prepare(chosen, database, cluster_key, offered, upstreams, configuration)
        services.announcer.announce_guardrails(guardrails(configuration, cluster_key, chosen.environment))
        guarded = Guard(application(services), database, internal_token(cluster_key), services.clock)
        server = _Server(guarded, services.publisher)
        async with leadership.held(server.stop), _running(services, Upkeep(database, services.clock, chosen.terms)):
            await server.serve(sockets=[listener])
    finally:
        await database.close()


async def _in_charge(database: Database) -> Leadership:
    leadership = Leadership(database)
    try:
        await leadership.take()
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(f"the database {database.name} cannot be used: {describe(error)}") from error
    return leadership


def _cluster_key(chosen: Settings) -> bytes:
    try:
        return ensure_cluster_key(chosen.cluster_key_file)
    except (ValueError, OSError) as error:
        raise StartupError(f"--cluster-key-file: {error}") from error


def _configuration(chosen: Settings) -> Configuration:
    if chosen.config is None:
        return Configuration()
    try:
        return load(chosen.config, protocols=PROTOCOLS, engines=None, known_providers=known_providers(PROTOCOLS))
    except ConfigError as error:
        raise StartupError(str(error)) from error


def _offers(chosen: Settings, configuration: Configuration) -> dict[str, Offer]:
    try:
        return offers(configuration, chosen.local_models, load_catalog())
    except WeightsError as error:
        raise StartupError(str(error)) from error


def _object_store(chosen: Settings) -> ObjectStore:
    if isinstance(chosen.object_store, Path):
        return DirectoryStore(chosen.object_store)
    return S3Store(*chosen.object_store)


async def _prepare(
    chosen: Settings,
    database: Database,
    cluster_key: bytes,
    offered: dict[str, Offer],
    upstreams: list[UpstreamRecord],
    configuration: Configuration,
) -> Services:
    """The database at its newest schema, and everything that it says published."""
    paid, stated = costs(configuration), configuration.aliases
    clock: Clock = SystemClock()
    now = clock.now_ns() // 1_000_000_000
    try:
        await migrate.upgrade(database)
        await bootstrap(database, chosen.data_dir / "bootstrap.json", now)
        async with database.write() as connection:
            dates = await fleet.model_dates(connection, offered, now)
            valid = await api_keys.every_active(connection, now)
            limited = await limits.every(connection)
            brought = await provider_keys.published(connection)
            policies = await residency.every(connection)
            cached = await caches.every(connection)
            priced_offers = offered | {each.name: Offer(each.name, price=each.price) for each in stated.values()}
            await book.take_configuration(connection, priced_offers, paid, now)
            await alias_book.take_configuration(connection, stated, now)
            named = await alias_book.records(connection)
            priced = await prices.every(connection)
            await connection.run_sync(rollup.advance)
            await connection.run_sync(partitions.make, now)
            signer = await connection.run_sync(signing.load, cluster_key, now)
        publisher = Publisher()
        announcer = Announcer(publisher, offered, upstreams, dates, configuration.installation)
        replicas = Fleet(database, offered, lambda: announcer.announce_models(replicas.replicas))
        await replicas.load()
    except (SQLAlchemyError, OSError) as error:
        raise StartupError(f"the database {database.name} cannot be used: {describe(error)}") from error
    if unpriced := book.unpriced(offered, priced, now):
        raise StartupError(
            f"[models.{unpriced[0]}] has targets but no price; add price = {{input = ..., output = ...}} in USD per "
            "million tokens (0 is a price too), or set it in the price book before the model is offered"
        )
    _require_sound(named, stated, offered)
    announcer.announce_prices(book.published(priced, now))
    announcer.announce_aliases(named)
    announcer.announce_keys(valid)
    announcer.announce_limits(limited)
    announcer.announce_own_keys(brought)
    announcer.announce_sinks(
        sinks(configuration.installation, configuration.sinks, payments=chosen.payments is not None)
    )
    announcer.announce_residency(policies)
    announcer.announce_caches(cached)
    announcer.announce_models(replicas.replicas)
    _require_kept(policies, announcer)
    webhooks = Webhooks(database, cluster_key, clock, chosen.webhook_hosts)
    budgets = Budgets(database, clock, announcer.announce_spends, webhooks.wake)
    ingest = JournalIngest(database, budgets.wake)
    answers = Answers(database, clock, webhooks.wake)
    objects = Objects(database, _object_store(chosen), publisher, clock)
    payments = None if chosen.payments is None else Stripe(chosen.payments)
    return Services(
        database,
        publisher,
        announcer,
        replicas,
        ingest,
        offered,
        clock,
        answers,
        webhooks,
        objects,
        signer,
        budgets,
        payments,
        chosen.invoice_font,
        cluster_key,
    )


def _require_kept(policies: Sequence[ResidencyRecord], announcer: Announcer) -> None:
    """StartupError when the file has changed since a policy was set, and now breaks it for every request. Where only
    targets break it gateways ask none of them, and the log says so."""
    for policy in policies:
        if reason := misplaced([policy], announcer.sinks):
            raise StartupError(
                f"{reason}: correct [installation] or [sinks] of the configuration file; to give up the policy, start "
                "with the labels that it was set under and remove it (tokenworks residency clear)"
            )
        if reason := unanswerable([policy], announcer.targets()):
            log.warning("a residency policy leaves nobody to answer: %s", reason)


def _require_sound(named: list[AliasRecord], stated: Mapping[str, AliasConfig], offered: Mapping[str, Offer]) -> None:
    """StartupError for what the file is wrong about. What other hands made and the file has broken since is refused by
    gateways, so that it can be put right."""
    every = alias_book.definitions(named)
    if reason := alias_book.problem(every, offered, [name for name in stated if name in every]):
        raise StartupError(f"[aliases]: {reason}")
    for name in every.keys() - stated.keys():
        if reason := alias_book.problem(every, offered, [name]):
            log.warning("an alias is broken: %s", reason)


def application(services: Services) -> FastAPI:
    """The routes, without their guard."""
    app = FastAPI(title="Tokenworks admin API", version=__version__, redoc_url=None)
    app.state.services = services
    errors.install(app)
    # Checked in guard.py; here it makes the document say so.
    admin_key = [Depends(HTTPBearer(auto_error=False, description="An admin key, sk-tw-admin-..."))]
    for router in routes.PUBLIC:  # their paths are among those that follow
        app.include_router(router)
    for router in routes.ROUTERS:
        app.include_router(router, dependencies=admin_key)
    app.include_router(internal.router)
    app.include_router(answers_router.router)
    for stored in (
        files_routes.router,
        anthropic_files.router,
        replicate_files.router,
        together_files.router,
        together_batches.router,
        batches_routes.router,
        batches_routes.leases,
        messages.router,
        webhook_endpoints.router,
        webhook_endpoints.event_types,
        receipts.internal,
    ):
        app.include_router(stored)
    return app


class _Server(uvicorn.Server):
    """Stops on a signal as uvicorn does, but ends the snapshot streams first and exits with code 0."""

    def __init__(self, app: ASGIApp, publisher: Publisher) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self._publisher = publisher

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        yield

    def stop(self) -> None:
        self.should_exit = True
        self._publisher.close()


@asynccontextmanager
async def _running(services: Services, upkeep: Upkeep) -> AsyncIterator[None]:
    """The loops that run beside."""
    async with (
        upkeep.running(),
        _expiring(services.fleet),
        services.answers.running(),
        services.webhooks.running(),
        services.budgets.running(),
        services.objects.running(),
        _paying(services),
    ):
        yield


@asynccontextmanager
async def _paying(services: Services) -> AsyncIterator[None]:
    if services.payments is None:
        yield
        return
    async with services.payments.running(), Meter(services.database, services.payments, services.clock).running():
        yield


@asynccontextmanager
async def _expiring(replicas: Fleet) -> AsyncIterator[None]:
    async def loop() -> None:
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            try:
                await replicas.expire()
            except SQLAlchemyError as error:
                log.error("a silent replica cannot be written down: %s", describe(error))

    task = asyncio.create_task(loop(), name="replica-expiry")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
