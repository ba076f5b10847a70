"""On whose behalf a gateway calls: it has checked the key and names what the key belongs to."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header

OBJECTS = "/internal/v1/objects"
"""In front of the public path of what gateways forward."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """`origin`: scheme and host that the client used."""

    project_id: str
    key_id: str
    origin: str


def _tenant(
    project: Annotated[str, Header(alias="x-tokenworks-project")],
    key: Annotated[str, Header(alias="x-tokenworks-key")],
    origin: Annotated[str, Header(alias="x-tokenworks-origin")] = "",
) -> Tenant:
    return Tenant(project, key, origin)


TenantDep = Annotated[Tenant, Depends(_tenant)]
