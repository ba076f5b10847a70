"""Keys of upstreams, used in turn: one that was refused or is used up rests, and the next one is used meanwhile."""

import logging
import time
from collections.abc import Callable, Sequence

from tokenworks.core.errors import Fault, TokenworksError
from tokenworks.snapshot.records import CredentialRecord, OwnKeysRecord, UpstreamRecord
from tokenworks.snapshot.sealing import owned, unseal

REST_SECONDS = {Fault.CREDENTIAL: 60.0, Fault.QUOTA: 300.0, Fault.RATE_LIMIT: 1.0}
"""Faults of a key, not of its upstream, and how long it rests unless the upstream says how long."""
MOST_OPENED = 10_000

log = logging.getLogger(__name__)


class Keyring:
    """`noted(key id, seconds)` is called when one begins to rest: other gateways may want to know."""

    def __init__(self, cluster_key: bytes) -> None:
        self.noted: Callable[[str, float], None] = lambda key_id, seconds: None
        self._cluster_key = cluster_key
        self._opened: dict[bytes, str] = {}
        self._resting: dict[str, float] = {}
        """Until when, by id, on the monotonic clock."""

    def usable(self, keys: Sequence[CredentialRecord]) -> Sequence[CredentialRecord]:
        """In their order, those that do not rest; when all of them do, the one that is done first."""
        if not self._resting or len(keys) < 2:
            return keys
        now, until = time.monotonic(), self._resting
        awake = [key for key in keys if until.get(key.id, 0.0) <= now]
        return awake or [min(keys, key=lambda key: until[key.id])]

    def secret(self, key: CredentialRecord, upstream: UpstreamRecord, own: OwnKeysRecord | None) -> str:
        """SealError when it is another installation's."""
        found = self._opened.get(key.sealed)
        if found is None:
            if len(self._opened) >= MOST_OPENED:
                self._opened.clear()
            bound = owned(upstream.id, own.project_id) if own is not None else upstream.id
            found = self._opened[key.sealed] = unseal(self._cluster_key, bound, key.sealed)
        return found

    def failed(self, key: CredentialRecord, upstream: UpstreamRecord, error: TokenworksError) -> bool:
        """Whether the failure is this key's alone, so that another may do better."""
        if error.fault not in REST_SECONDS:
            return False
        seconds = max(error.retry_after or 0.0, REST_SECONDS[error.fault])
        self.rest(key.id, seconds)
        self.noted(key.id, seconds)
        log.warning("key %s of %s rests for %.0f s: %s", key.id, upstream.provider, seconds, error.fault)
        return True

    def rest(self, key_id: str, seconds: float) -> None:
        """It was refused, here or on another gateway."""
        now = time.monotonic()
        if len(self._resting) >= MOST_OPENED:
            self._resting = {each: until for each, until in self._resting.items() if until > now}
        self._resting[key_id] = max(self._resting.get(key_id, 0.0), now + seconds)

    def rests(self, key_id: str) -> float:
        """Seconds for which a key is not used; 0 when it is."""
        return max(self._resting.get(key_id, 0.0) - time.monotonic(), 0.0)
