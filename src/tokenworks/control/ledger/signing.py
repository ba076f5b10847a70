"""The keys that receipts are signed with: made at first start, kept sealed in the database, published for ever."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import select
from sqlalchemy.engine import Connection

from tokenworks import receipts
from tokenworks.control.startup import StartupError
from tokenworks.control.storage.ledger_tables import signing_keys
from tokenworks.snapshot.sealing import SealError, seal, unseal

PURPOSE = "receipts "


class Signer:
    """`keys`: the JSON Web Key Set of all that ever signed."""

    def __init__(self, private: bytes, published: list[bytes]) -> None:
        self._private = private
        self.keys = {"keys": [receipts.published(public) for public in published]}

    def sign(self, document: dict[str, object]) -> dict[str, object]:
        return receipts.sign(document, self._private)


def load(connection: Connection, cluster_key: bytes, now: int) -> Signer:
    """The newest key signs; there is one after this. StartupError when it is sealed under another cluster key."""
    rows = connection.execute(select(signing_keys).order_by(signing_keys.c.created_at.desc(), signing_keys.c.id)).all()
    if not rows:
        made = Ed25519PrivateKey.generate()
        public = made.public_key().public_bytes_raw()
        name = receipts.key_id(public)
        sealed = seal(cluster_key, PURPOSE + name, made.private_bytes_raw().hex())
        connection.execute(signing_keys.insert().values(id=name, public=public, sealed=sealed, created_at=now))
        return Signer(made.private_bytes_raw(), [public])
    try:
        private = bytes.fromhex(unseal(cluster_key, PURPOSE + rows[0].id, rows[0].sealed))
    except SealError as error:
        raise StartupError(f"the key that signs receipts cannot be opened: {error}") from error
    return Signer(private, [row.public for row in rows])
