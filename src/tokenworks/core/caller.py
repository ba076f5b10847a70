"""Who asks: a key, and the tenant tree it hangs on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """`models` None means every model, `regions` None that its requests may be answered everywhere."""

    key_id: str
    project_id: str
    organization_id: str
    models: frozenset[str] | None = None
    regions: frozenset[str] | None = None
