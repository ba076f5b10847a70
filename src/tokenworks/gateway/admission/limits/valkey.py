"""The limit store shared by many gateways: Valkey or Redis (7.0 or later), one server-side function per step.

What the functions do is in valkey.lua. They are loaded when the server does not know them, so a flush, a failover to
an empty server or a new version heals by itself. Needs the extra `valkey`.
"""

import json
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from tokenworks.core.errors import Unavailable
from tokenworks.gateway.admission.limits.base import Claim, Reading, Refusal

LARGEST = 2**53 - 1
"""Counts are exact up to here: 9,007,199 USD in nano-dollars."""

_LIBRARY = files(__package__).joinpath("valkey.lua").read_text()


class ValkeyStore:
    """`url` as redis-py takes it: redis://[:password@]host:port/db, rediss://, unix:///path."""

    def __init__(self, url: str, *, timeout: float = 1.0) -> None:
        self._redis: Any = Redis.from_url(
            url,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            retry=Retry(NoBackoff(), 1),
            decode_responses=True,
        )

    async def close(self) -> None:
        await self._redis.aclose()

    async def reserve(self, request_id: str, claims: list[Claim], ttl: float) -> Refusal | None:
        return _refusal(await self._call("tw_reserve_v1", request_id, round(ttl * 1000), _encode(claims)))

    async def extend(self, request_id: str, claims: list[Claim]) -> Refusal | None:
        try:
            return _refusal(await self._call("tw_extend_v1", request_id, _encode(claims)))
        except ResponseError as error:
            raise KeyError(request_id) from error

    async def renew(self, request_ids: list[str], ttl: float) -> None:
        await self._call("tw_renew_v1", round(ttl * 1000), *request_ids)

    async def settle(self, request_id: str, actual: dict[str, int]) -> bool:
        return bool(await self._call("tw_settle_v1", request_id, json.dumps(actual)))

    async def read(self, claims: list[Claim]) -> list[Reading]:
        flat = [int(text) for text in await self._call("tw_read_v1", _encode(claims))]
        return [
            Reading(used, None if wait < 0 else wait / 1000) for used, wait in zip(flat[::2], flat[1::2], strict=True)
        ]

    async def load(self, claim: Claim, used: int) -> None:
        """Set the current window of a FOREVER bucket, when budgets are rebuilt from the ledger."""
        await self._command("SET", f"tw:c:{claim.bucket}:0", used)

    async def _call(self, function: str, *arguments: Any) -> Any:
        try:
            return await self._command("FCALL", function, 0, *arguments)
        except ResponseError as error:
            if "Function not found" not in str(error):
                raise
        await self._command("FUNCTION", "LOAD", "REPLACE", _LIBRARY)
        return await self._command("FCALL", function, 0, *arguments)

    async def _command(self, *words: Any) -> Any:
        try:
            return await self._redis.execute_command(*words)
        except ResponseError:
            raise
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(
                "Limits cannot be checked right now: their store does not answer.",
                code="limit_store_unavailable",
                retry_after=1.0,
            ) from error


def _encode(claims: list[Claim]) -> str:
    rows = []
    for claim in claims:
        if claim.limit > LARGEST or claim.amount > LARGEST:
            raise ValueError(
                f"{claim.bucket}: {max(claim.limit, claim.amount)} is above the largest exact count {LARGEST}"
            )
        row = {"bucket": claim.bucket, "amount": claim.amount, "limit": claim.limit, "window": claim.window}
        rows.append(row | {"offset": claim.offset, "lease": claim.lease})
    return json.dumps(rows)


def _refusal(answer: list[str] | None) -> Refusal | None:
    if not answer:
        return None
    bucket, limit, used, wait = answer
    return Refusal(bucket, int(limit), int(used), None if int(wait) < 0 else int(wait) / 1000)
