"""URLs that stand for a key on one file, for a while: gateways check them (gateway/edge/signed.py)."""

from urllib.parse import urlencode

from tokenworks.control.services import Services
from tokenworks.control.storage.files import File
from tokenworks.snapshot.sealing import file_signature

SECONDS = 3600


def url(
    services: Services, origin: str, method: str, file: File, *, until: int | None = None, checksum: str = ""
) -> str:
    """`until`: Unix seconds; an hour from now unless given."""
    expires = str(until or services.now() + SECONDS)
    signature = file_signature(services.cluster_key, method, file.id, file.project_id, expires, checksum)
    query = {"project": file.project_id, "expires": expires, "checksum": checksum, "signature": signature}
    return f"{origin}/v1/files/{file.id}/content?{urlencode(query)}"
