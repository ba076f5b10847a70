"""The catalog: models by name, as `catalog.toml` in this package says, extended or overridden by the user's files.

Knows what an entry may say, not how its weights are fetched.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tokenworks.models.errors import InvalidCatalog, InvalidSource, UnknownModel
from tokenworks.models.sources import parse, scheme_of

DEFAULT_MODEL = "smollm2-135m"

Capability = Literal["tools", "vision", "json_schema", "reasoning", "embeddings", "rerank"]
PositiveInt = Annotated[int, msgspec.Meta(ge=1)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One model. `size` (bytes) and `sha256` are the weights file's; without `sha256` the first download pins it."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$", max_length=256)]
    source: str
    description: str = ""
    licence: str = ""
    """SPDX identifier, or the licence's own name when it has none."""
    gated: bool = False
    """The publisher wants the licence accepted by an account before it hands out the file."""
    parameters: str = ""
    quantization: str = ""
    context_length: PositiveInt | None = None
    max_output: PositiveInt | None = None
    capabilities: tuple[Capability, ...] = ()
    size: PositiveInt | None = None
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    engine: str | None = None
    """None: the one that the worker takes for weights by default."""
    options: dict[str, Any] = {}
    """The engine's own options, e.g. `chat_template`."""
    projector: str | None = None
    """The source of what turns images into tokens of these weights, for engines that read images."""
    projector_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None

    def __post_init__(self) -> None:
        parse(self.source)
        if self.projector is not None:
            parse(self.projector)

    @property
    def files(self) -> tuple["Entry", ...]:
        """Itself, and the projector as an entry of its own: what there is to fetch."""
        if self.projector is None:
            return (self,)
        return self, Entry(name=self.name, source=self.projector, sha256=self.projector_sha256, gated=self.gated)


class Catalog(Mapping[str, Entry]):
    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownModel(name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def resolve(self, name_or_source: str, *, name: str | None = None) -> Entry:
        """A catalog name, or a source such as `file:/models/mine.gguf`, which becomes an entry called `name`."""
        if scheme_of(name_or_source) is None:
            return self[name_or_source]
        for entry in self._entries.values():
            if entry.source == name_or_source:
                return entry
        return Entry(name=name or parse(name_or_source).default_name, source=name_or_source)


def load_catalog(extra_paths: Iterable[Path] = ()) -> Catalog:
    """The shipped catalog, then each file in order.

    A table with the name of an earlier entry replaces it when it sets `source`; otherwise it changes only the keys it
    names, so that a new licence or option needs one line and a new file never keeps the old file's checksum.
    """
    tables = _tables(_read(Path(__file__).with_name("catalog.toml")), "catalog.toml")
    entries = {name: _entry(name, table, "catalog.toml") for name, table in tables.items()}
    for path in extra_paths:
        for name, table in _tables(_read(path), str(path)).items():
            inherited = tables.get(name, {}) if "source" not in table else {}
            tables[name] = {**inherited, **table}
            entries[name] = _entry(name, tables[name], str(path))
    return Catalog(entries)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidCatalog(f"{path}: cannot be read: {error}", "Name a readable TOML file in UTF-8.") from error


def _tables(text: str, file: str) -> dict[str, dict[str, Any]]:
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidCatalog(f"{file}: not TOML: {error}", "Correct the syntax.") from error
    models = document.pop("models", {})
    if document:
        unknown = ", ".join(repr(key) for key in document)
        raise InvalidCatalog(f"{file}: unknown top-level {unknown}", "Write each model as a table [models.NAME].")
    if not isinstance(models, dict) or not all(isinstance(table, dict) for table in models.values()):
        raise InvalidCatalog(f"{file}: 'models' holds something that is no table", "Write [models.NAME].")
    return models


def _entry(name: str, table: dict[str, Any], file: str) -> Entry:
    where = f"{file}: [models.{name}]"
    for key in table:
        if key not in Entry.__struct_fields__ or key == "name":
            near = difflib.get_close_matches(key, Entry.__struct_fields__, n=1)
            remedy = f"Did you mean {near[0]!r}?" if near else f"Valid keys: {', '.join(Entry.__struct_fields__[1:])}."
            raise InvalidCatalog(f"{where}: unknown key {key!r}", remedy)
    try:
        return msgspec.convert({**table, "name": name}, Entry)
    except InvalidSource as error:
        raise InvalidCatalog(f"{where}: {error.message}", error.remedy) from error
    except msgspec.ValidationError as error:
        raise InvalidCatalog(f"{where}: {error}", "Correct the value; docs/models.md lists every key.") from error
