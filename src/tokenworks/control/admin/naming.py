"""Names that people give to things."""

from typing import Annotated

from pydantic import AfterValidator, Field


def _printable(name: str) -> str:
    if not name.isprintable() or not name.strip():
        raise ValueError("must be text without control characters")
    return name


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
