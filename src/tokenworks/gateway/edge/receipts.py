"""Receipts belong to control. An API key reads its project's, an admin key its organization's, and the keys that they
are signed with are everybody's."""

from tokenworks.gateway.edge.asgi import Handler
from tokenworks.gateway.edge.exchange import Exchange
from tokenworks.gateway.edge.stored import RECEIPTS

KEYS = f"{RECEIPTS}/keys"
_ADMIN = b"bearer sk-tw-admin-"


def receipts(of_project: Handler, of_organization: Handler) -> Handler:
    async def answer(exchange: Exchange) -> None:
        sent = exchange.header(b"authorization") or b""
        administrative = exchange.path == KEYS or sent[: len(_ADMIN)].lower() == _ADMIN
        await (of_organization if administrative else of_project)(exchange)

    return answer
