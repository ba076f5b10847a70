"""What the routes work with, made once by app.py."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Request

from tokenworks.control.answers.service import Answers
from tokenworks.control.answers.webhooks import Webhooks
from tokenworks.control.batches.service import Objects
from tokenworks.control.budgets.watch import Budgets
from tokenworks.control.fleet import Fleet
from tokenworks.control.ingest.journal import JournalIngest
from tokenworks.control.ledger.payments.base import PaymentProvider
from tokenworks.control.ledger.signing import Signer
from tokenworks.control.offers import Offer
from tokenworks.control.publishing import Announcer
from tokenworks.control.storage.database import Database
from tokenworks.core.clock import Clock
from tokenworks.snapshot.publisher import Publisher


@dataclass(frozen=True, slots=True)
class Services:
    database: Database
    publisher: Publisher
    announcer: Announcer
    fleet: Fleet
    ingest: JournalIngest
    offers: dict[str, Offer]
    clock: Clock
    answers: Answers
    webhooks: Webhooks
    objects: Objects
    signer: Signer
    budgets: Budgets
    payments: PaymentProvider | None = None
    invoice_font: Path | None = None
    cluster_key: bytes = field(default=b"", repr=False)
    changes: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by one admin change at a time (changes.py)."""

    def now(self) -> int:
        """Unix seconds."""
        return self.clock.now_ns() // 1_000_000_000


def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(_services)]
