"""The limit store shared by many gateways: Valkey or Redis (7.0 or later), one server-side function per step.

What the functions do is in valkey.lua. They are loaded when the server does not know them, so a flush, a failover to
an empty server or a new version heals by itself. Not for a sharded cluster: one atomic step needs one server.
"""

from importlib.resources import files

import msgspec

from tokenworks.core.errors import Unavailable
from tokenworks.gateway.admission.limits.base import LARGEST, Claim, Decision, Pulse, Reading, Refusal
from tokenworks.gateway.admission.limits.resp import Answer, Server, ServerError, Word

AWAY_ERRORS = ("LOADING", "READONLY", "MASTERDOWN", "OOM", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "MISCONF", "NOAUTH")
"""Answers of a server that cannot decide now; any other is a bug of ours."""

_LIBRARY = files(__package__).joinpath("valkey.lua").read_bytes()
_pack = msgspec.msgpack.Encoder().encode
_numbers = msgspec.msgpack.Decoder(list[int]).decode


class ValkeyStore:
    """`url` as resp.Server takes it. `timeout` in seconds bounds every wait for the server."""

    in_process = False

    def __init__(self, url: str, *, timeout: float = 1.0) -> None:
        self._server = Server(url, timeout)

    async def close(self) -> None:
        await self._server.close()

    async def reserve(self, request_id: str, claims: list[Claim], ttl: float, *, force: bool = False) -> Decision:
        answer = await self._call("tw_reserve_v2", request_id, round(ttl * 1000), _encode(claims), int(force))
        return _decision(claims, answer)

    async def extend(self, request_id: str, claims: list[Claim]) -> Decision:
        try:
            return _decision(claims, await self._call("tw_extend_v2", request_id, _encode(claims)))
        except ServerError as error:
            raise KeyError(request_id) from error

    async def renew(self, gateway_id: str, request_ids: list[str], ttl: float) -> Pulse:
        answer = await self._call("tw_renew_v2", gateway_id, round(ttl * 1000), *request_ids)
        generation, gateways = _numbers(answer or b"")
        return Pulse(str(generation), gateways)

    async def settle(self, request_id: str, actual: dict[str, int]) -> bool:
        return bool(await self._call("tw_settle_v2", request_id, _pack(actual)))

    async def read(self, claims: list[Claim]) -> list[Reading]:
        return _decision(claims, await self._call("tw_read_v2", _encode(claims))).readings

    async def _call(self, function: str, *arguments: Word) -> bytes | None:
        try:
            return await self._command("FCALL", function, 0, *arguments)
        except ServerError as error:
            if "Function not found" not in str(error):
                raise
        await self._command("FUNCTION", "LOAD", "REPLACE", _LIBRARY)
        return await self._command("FCALL", function, 0, *arguments)

    async def _command(self, *words: Word) -> bytes | None:
        try:
            answer: Answer = await self._server.call(*words)
        except ServerError as error:
            if not str(error).startswith(AWAY_ERRORS):
                raise
            raise _away() from error
        except (OSError, TimeoutError) as error:
            raise _away() from error
        return answer if isinstance(answer, bytes) else b"1" if answer else None


def _away() -> Unavailable:
    return Unavailable(
        "Limits cannot be checked right now: their store does not answer.",
        code="limit_store_unavailable",
        retry_after=1.0,
    )


def _encode(claims: list[Claim]) -> bytes:
    rows = []
    for claim in claims:
        largest = max(claim.limit, claim.amount, claim.floor or 0)
        if largest > LARGEST:
            raise ValueError(f"{claim.bucket}: {largest} is above the largest exact count {LARGEST}")
        floor = -1 if claim.floor is None else claim.floor
        row = (claim.bucket, claim.amount, claim.smallest, claim.middle, claim.limit, claim.window, claim.offset)
        rows.append((*row, int(claim.lease), floor, claim.since))
    return _pack(rows)


def _decision(claims: list[Claim], packed: bytes | None) -> Decision:
    answer = _numbers(packed or b"")
    at, rebuilding, pending, wait = answer[:4]
    readings = [
        Reading(answer[n], None if answer[n + 1] < 0 else answer[n + 1] / 1000, answer[n + 2])
        for n in range(4, len(answer), 3)
    ]
    if not at:
        return Decision(None, readings)
    claim = claims[at - 1]
    seconds = None if wait < 0 else wait / 1000
    return Decision(
        Refusal(claim.bucket, claim.limit, readings[at - 1].used, seconds, pending, bool(rebuilding)), readings
    )
