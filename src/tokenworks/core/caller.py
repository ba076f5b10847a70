"""Who asks: a key, and the tenant tree it hangs on."""

from dataclasses import dataclass

OPERATOR = "operator"
"""The id that stands for nobody's organization: whatever the installation itself asks for is its operator's."""


@dataclass(frozen=True, slots=True)
class Caller:
    """`models` None means every model, `regions` None that its requests may be answered everywhere."""

    key_id: str
    project_id: str
    organization_id: str
    models: frozenset[str] | None = None
    regions: frozenset[str] | None = None
