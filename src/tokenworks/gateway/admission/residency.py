"""What a project may have stored here: a residency policy holds for this installation's own stores, too."""

from tokenworks.core.caller import Caller
from tokenworks.core.errors import PermissionDenied
from tokenworks.snapshot.state import State

RESIDENCY_DENIED = "residency_denied"


def require_storable(caller: Caller, state: State, remedy: str = "") -> None:
    """PermissionDenied when this installation may not keep what the caller's request would have stored."""
    for policy in state.policies(caller.organization_id, caller.project_id):
        if policy.unstorable:
            message = f"Nothing of this project may be stored here: this installation {policy.unstorable}.{remedy}"
            raise PermissionDenied(message, code=RESIDENCY_DENIED)
