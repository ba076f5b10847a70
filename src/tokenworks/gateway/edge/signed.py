"""URLs of single files that need no key, because control has signed them (control/files/signed.py)."""

import hmac
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl

from tokenworks.core.errors import PermissionDenied
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.snapshot.sealing import file_signature

PREFIX, SUFFIX = "/v1/files/", "/content"


@dataclass(frozen=True, slots=True)
class Signed:
    file_id: str
    project_id: str
    checksum: str


def signed(exchange: Exchange, cluster_key: bytes) -> Signed | None:
    """None for a request without such a URL; PermissionDenied when it is not one of ours, or too old."""
    path = exchange.path
    if b"signature=" not in exchange.query or not (path.startswith(PREFIX) and path.endswith(SUFFIX)):
        return None
    given = dict(parse_qsl(exchange.query.decode("latin-1"), keep_blank_values=True))
    found = Signed(path.removeprefix(PREFIX).removesuffix(SUFFIX), given.get("project", ""), given.get("checksum", ""))
    expires = given.get("expires", "")
    parts = (exchange.method, found.file_id, found.project_id, expires, found.checksum)
    expected = file_signature(cluster_key, *parts)
    if not hmac.compare_digest(expected.encode(), given.get("signature", "").encode()):
        raise PermissionDenied("The signature of this URL is not ours.", code="invalid_signature")
    if int(expires) < time.time():
        raise PermissionDenied("This URL is too old: ask for another.", code="expired_signature")
    return found
