"""Delivers webhooks: signed, in order for each answer, the last one again and again until somebody takes it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import aiohttp
from sqlalchemy.exc import SQLAlchemyError

from tokenworks.control.storage import deliveries, endpoints
from tokenworks.control.storage.database import Database, describe
from tokenworks.control.storage.deliveries import Delivery
from tokenworks.control.storage.endpoints import Endpoint
from tokenworks.core.clock import Clock
from tokenworks.core.errors import InvalidRequest
from tokenworks.outside import check_url, connector
from tokenworks.protocols.webhooks import sign
from tokenworks.snapshot.sealing import webhook_secret

LOOK_SECONDS = 1.0
AT_ONCE = 16
TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=5)
PASSING_EVENTS = frozenset({"start", "output", "logs"})
"""Of a prediction that goes on: what comes after tells more, so these are not sent twice."""
TRIES = 10
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
"""With TRIES tries the last one is made after about a quarter of an hour."""
_NANO = 1_000_000_000

log = logging.getLogger(__name__)


class Undelivered(Exception):
    """No answer; the message says why."""


class Webhooks:
    """`allowed` hosts may be private ones. `wake` says that something may be due."""

    def __init__(self, database: Database, cluster_key: bytes, clock: Clock, allowed: Collection[str]) -> None:
        self._database = database
        self._cluster_key = cluster_key
        self._clock = clock
        self._allowed = frozenset(allowed)
        self._woken = asyncio.Event()

    def check(self, url: str) -> None:
        """InvalidRequest for a URL that can never be called."""
        check_url(url, self._allowed)

    def secret(self, signer: str) -> str:
        """What signs the webhooks of a project or of an endpoint."""
        return webhook_secret(self._cluster_key, signer)

    async def send_once(self, endpoint: Endpoint, id: str, body: bytes) -> int:
        """At once, and not again: the status of the answer. Undelivered when there is none."""
        async with self._session() as session:
            return await self._post(session, endpoint.signers(self._clock.now_ns() // _NANO), id, endpoint.url, body)

    def wake(self) -> None:
        self._woken.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._loop(), name="webhooks")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _loop(self) -> None:
        async with self._session() as session:
            while True:
                try:
                    while waiting := await self._due():
                        await asyncio.gather(*[self._deliver(session, each) for each in waiting])
                except SQLAlchemyError as error:
                    log.error("webhooks cannot be read or noted: %s", describe(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._woken.wait()
                self._woken.clear()

    def _session(self) -> aiohttp.ClientSession:
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector(self._allowed), cookie_jar=jar, trust_env=False)

    async def _due(self) -> list[Delivery]:
        async with self._database.read() as connection:
            return await deliveries.due(connection, self._clock.now_ns(), AT_ONCE)

    async def _deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        problem = await self._send(session, delivery)
        tries = delivery.attempts + 1
        again = problem is not None and delivery.event not in PASSING_EVENTS and tries < TRIES
        async with self._database.write() as connection:
            if again:
                pause = min(FIRST_PAUSE * 2**delivery.attempts, LONGEST_PAUSE)
                await deliveries.postpone(connection, delivery.id, self._clock.now_ns() + int(pause * _NANO))
            else:
                await deliveries.remove(connection, delivery.id)
        if problem is not None:
            what = "is tried again" if again else "is given up"
            log.warning("webhook %s of %s %s: %s", delivery.event, delivery.answer_id, what, problem)

    async def _send(self, session: aiohttp.ClientSession, delivery: Delivery) -> str | None:
        """None when somebody took it, else why not."""
        async with self._database.read() as connection:
            endpoint = await endpoints.get(connection, delivery.project_id)
        signers = [delivery.project_id] if endpoint is None else endpoint.signers(self._clock.now_ns() // _NANO)
        try:
            status = await self._post(session, signers, delivery.id, delivery.url, delivery.body)
        except Undelivered as error:
            return str(error)
        return None if 200 <= status < 300 else f"status {status}"

    async def _post(self, session: aiohttp.ClientSession, signers: list[str], id: str, url: str, body: bytes) -> int:
        """The status of the answer. Undelivered when there is none."""
        secrets = [self.secret(signer) for signer in signers]
        headers = sign(secrets, id, self._clock.now_ns() // _NANO, body)
        headers |= {"content-type": "application/json", "user-agent": "tokenworks-webhooks"}
        try:
            # An address in the URL itself is never resolved, so it is judged here.
            check_url(url, self._allowed)
            async with session.post(
                url, data=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
            ) as response:
                return response.status
        except InvalidRequest as error:
            raise Undelivered(error.message) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise Undelivered(str(error) or type(error).__name__) from error
