"""Invoices and credit notes as files. A form is one file with `render`; only the one that is asked for is imported."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMS = {
    "csv": ("text/csv; charset=utf-8", "tokenworks.control.ledger.documents.table"),
    "pdf": ("application/pdf", "tokenworks.control.ledger.documents.paper"),
}


@dataclass(frozen=True, slots=True)
class File:
    name: str
    media_type: str
    content: bytes


def as_json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def render(document: dict[str, Any], form: str, font: Path | None) -> File:
    """`font`: a TrueType font for scripts that the built-in one of PDF lacks."""
    media_type, module = FORMS[form]
    content: bytes = importlib.import_module(module).render(document, font)
    name = document["number"] or f"draft-{document['month']}"
    return File(f"{name}.{form}", media_type, content)
