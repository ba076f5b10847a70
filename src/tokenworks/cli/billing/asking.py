"""What these commands share: whose book it is, and money moved once however often it is sent."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenworks.cli import connection
from tokenworks.client import Client

BASE = "/admin/v1/billing"

Organization = Annotated[
    str | None, typer.Option("--organization", metavar="ID", help="Whose book it is, for the operator; else your own.")
]
Once = Annotated[
    str | None,
    typer.Option("--idempotency-key", metavar="KEY", help="Sent again with the same key, it is done once."),
]
Usd = Annotated[str, typer.Argument(metavar="USD", help="Decimal USD, as in 25 or 0.005.")]
Where = tuple[str, str | None, Path]
"""--url, --key, --data-dir"""


def get(where: Where, path: str, organization: str | None, **query: Any) -> Any:
    given = {name: str(value) for name, value in query.items() if value is not None}
    return connection.call(connection.administrator(*where), "get", BASE + path, _of(organization, given))


def post(where: Where, path: str, organization: str | None, body: Mapping[str, Any], once: str | None = None) -> Any:
    """With an idempotency key of its own when none is given, so that a connection that breaks does no harm."""
    headers = {"idempotency-key": once or secrets.token_hex(16)}
    suffix = f"?organization_id={organization}" if organization else ""
    client: Client = connection.administrator(*where)

    async def send() -> Any:
        async with client:
            return await client.post(f"{BASE}{path}{suffix}", dict(body), headers=headers, timeout=120)

    return connection.run(send())


def read_bytes(where: Where, path: str, organization: str | None, **query: str) -> bytes:
    client: Client = connection.administrator(*where)

    async def fetch() -> bytes:
        async with client:
            return await client.get_bytes(f"{BASE}{path}{_text(_of(organization, query))}", timeout=120)

    return connection.run(fetch())


def _of(organization: str | None, query: dict[str, str]) -> dict[str, str]:
    return {**query, **({"organization_id": organization} if organization else {})}


def _text(query: Mapping[str, str]) -> str:
    return "?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else ""
