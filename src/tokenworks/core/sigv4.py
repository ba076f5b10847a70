"""AWS Signature Version 4 for one request. Pure: the time is given. Checked against AWS's published vectors."""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Signer:
    credentials: Credentials
    region: str
    service: str = "s3"

    def sign(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        payload_sha256: str,
        now: datetime,
    ) -> dict[str, str]:
        """All headers to send: the given ones (with `host`), the date, for S3 the payload's hash, and the signature.

        `path` is not yet percent-encoded for S3, which signs it encoded once, and as it is sent for all others, which
        sign it encoded twice; `quoted` and `query_string` encode as they are signed.
        """
        stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        sent = {name.lower(): value for name, value in headers.items()}
        sent["x-amz-date"] = stamp
        if self.service == "s3":
            sent["x-amz-content-sha256"] = payload_sha256
        if self.credentials.session_token:
            sent["x-amz-security-token"] = self.credentials.session_token
        names = sorted(sent)
        signed_names = ";".join(names)
        lines = [f"{name}:{' '.join(sent[name].split())}\n" for name in names]
        canonical = "\n".join([method, quoted(path), query_string(query), "".join(lines), signed_names, payload_sha256])
        scope = f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"
        to_sign = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.new(self._key(stamp[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
        sent["authorization"] = (
            f"{ALGORITHM} Credential={self.credentials.access_key}/{scope},"
            f"SignedHeaders={signed_names},Signature={signature}"
        )
        return sent

    def _key(self, date: str) -> bytes:
        key = f"AWS4{self.credentials.secret_key}".encode()
        for part in (date, self.region, self.service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def quoted(path: str) -> str:
    return quote(path, safe="/-_.~")


def query_string(query: Mapping[str, str]) -> str:
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)
