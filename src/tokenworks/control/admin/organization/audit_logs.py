"""The audit log: every change, and every refusal of somebody who had an admin key."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from tokenworks.control.access import ReadAudit
from tokenworks.control.admin.organization.shapes import Listing, listed
from tokenworks.control.services import ServicesDep
from tokenworks.control.storage import audit
from tokenworks.control.storage.audit import Entry, Filter

router = APIRouter(prefix="/v1/organization/audit_logs", tags=["audit log"])

_NANO = 1_000_000_000

Bound = Annotated[int, Field(ge=0, lt=2**33)] | None
Names = Annotated[list[str], Field(max_length=100)] | None


class AuditLog(BaseModel):
    """The details stand under the name of the type as well, which is where OpenAI has them."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    effective_at: int = Field(description="Unix seconds.")
    actor: dict[str, Any]
    project: dict[str, str] | None
    outcome: str = Field(description="done | refused")
    ip_address: str
    request_id: str
    resource_id: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


class Question(BaseModel):
    """Newest first. `before` turns the direction: what is newer than that entry."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    after: str | None = None
    before: str | None = None
    gt: Bound = Field(None, alias="effective_at[gt]")
    gte: Bound = Field(None, alias="effective_at[gte]")
    lt: Bound = Field(None, alias="effective_at[lt]")
    lte: Bound = Field(None, alias="effective_at[lte]")
    event_types: Names = None
    project_ids: Names = None
    actor_ids: Names = None
    actor_emails: Names = None
    resource_ids: Names = None


@router.get("")
async def list_all(services: ServicesDep, actor: ReadAudit, asked: Annotated[Question, Query()]) -> Listing[AuditLog]:
    starts = [bound for bound in (asked.gte, None if asked.gt is None else asked.gt + 1) if bound is not None]
    ends = [bound for bound in (asked.lt, None if asked.lte is None else asked.lte + 1) if bound is not None]
    chosen = Filter(
        (max(starts) * _NANO if starts else None, min(ends) * _NANO if ends else None),
        {
            "action": asked.event_types,
            "project_id": asked.project_ids,
            "actor_id": asked.actor_ids,
            "actor_email": asked.actor_emails,
            "resource_id": asked.resource_ids,
        },
    )
    async with services.database.read() as connection:
        page = await audit.some(
            connection,
            actor.organization_id,
            chosen,
            asked.limit,
            asked.before or asked.after,
            descending=asked.before is None,
        )
    data = page.data if asked.before is None else page.data[::-1]
    found: Listing[AuditLog] = listed([_shape(each) for each in data], page.has_more)
    return found


def _shape(entry: Entry) -> AuditLog:
    user = {"id": entry.actor["user_id"], "email": entry.actor_email} if entry.actor["user_id"] else None
    key = {
        "id": entry.actor["key_id"],
        "name": entry.actor["key_name"],
        "role": entry.actor["role"],
        "type": "user" if user else "service_account",
        "user": user,
        "service_account": None if user else {"id": entry.actor["key_id"]},
    }
    details = {"id": entry.resource_id, "data": entry.after, "changes_requested": entry.after}
    return AuditLog(
        id=entry.id,
        type=entry.action,
        effective_at=entry.at_ns // _NANO,
        actor={"type": "api_key", "api_key": key},
        project={"id": entry.project_id, "name": ""} if entry.project_id else None,
        outcome=entry.outcome,
        ip_address=entry.address,
        request_id=entry.request_id,
        resource_id=entry.resource_id,
        before=entry.before,
        after=entry.after,
        **{entry.action: details},
    )
