"""From a multipart body to a file: the bytes go to the store as they come, the fields are judged at the end."""

import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from tokenworks.control.files.multipart import FormReader
from tokenworks.control.objects.store import ObjectStore
from tokenworks.control.storage import files
from tokenworks.control.storage.database import Database
from tokenworks.control.storage.files import File
from tokenworks.core.clock import Clock
from tokenworks.core.errors import InvalidRequest

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
BATCH_SECONDS = 30 * 24 * 3600
"""Inputs of batches are not kept for ever unless a client says so."""
EXPIRY_SECONDS = (3600, 30 * 24 * 3600)
LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Uploads:
    database: Database
    store: ObjectStore
    clock: Clock

    async def receive(
        self, project_id: str, form: FormReader, purpose: str | None = None, *, part_name: str = "file", **given: str
    ) -> File:
        """InvalidRequest names the field that is missing or wrong; nothing is kept then. `purpose` is what the file is
        for when nothing says it, `given` are fields that the form need not have, `part_name` is the file's own."""
        fields: dict[str, str] = given if purpose is None else {"purpose": purpose, **given}
        file: File | None = None
        try:
            while (part := await form.part()) is not None:
                if part.name != part_name:
                    fields[part.name] = await form.text()
                elif file is not None:
                    raise InvalidRequest(f"There is more than one '{part_name}'; send one at a time.", param=part_name)
                else:
                    file = await self.keep(project_id, clean_name(part.filename), form.data())
            if file is None:
                message = f"'{part_name}' is missing: send the file as a multipart field of this name."
                raise InvalidRequest(message, param=part_name)
            file = replace(file, purpose=_purpose(fields), expires_at=_expiry(fields, file.created_ns // 10**9))
            async with self.database.write() as connection:
                await files.finish(connection, file)
        except BaseException:
            if file is not None:
                await self._discard(file)
            raise
        return file

    async def keep(self, project_id: str, filename: str, data: AsyncIterator[bytes], purpose: str = "") -> File:
        """Bytes into the store, under a row that nobody sees before `files.finish`."""
        file = File(new_file_id(), project_id, purpose, filename, self.clock.now_ns())
        async with self.database.write() as connection:
            await files.begin(connection, file)
        try:
            stored = await self.store.put(file.key, data)
        except BaseException:
            await self._discard(file)
            raise
        return replace(file, bytes=stored.size, sha256=stored.sha256)

    async def _discard(self, file: File) -> None:
        async with self.database.write() as connection:
            await files.hide(connection, file.id, self.clock.now_ns() // 10**9)


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def clean_name(given: str | None) -> str:
    """The last part of a path, for that is what some clients send; never used as a path here."""
    name = (given or "").replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter for letter in name if letter.isprintable())[:LONGEST_NAME]
    return shown or f"upload-{int(time.time())}"


def _purpose(fields: dict[str, str]) -> str:
    purpose = fields.get("purpose", "")
    if purpose not in PURPOSES:
        said = f"{purpose!r} is not one" if purpose else "it is missing"
        raise InvalidRequest(f"'purpose' must be one of {', '.join(PURPOSES)}; {said}.", param="purpose")
    return purpose


def _expiry(fields: dict[str, str], created_at: int) -> int | None:
    if (seconds := fields.get("expires_in_seconds")) is not None:
        return created_at + expiry_seconds(seconds, "expires_in_seconds")
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return created_at + BATCH_SECONDS if fields["purpose"] == "batch" else None
    if anchor != "created_at":
        raise InvalidRequest("'expires_after[anchor]' must be 'created_at'.", param="expires_after.anchor")
    return created_at + expiry_seconds(seconds, "expires_after.seconds")


def expiry_seconds(given: str | int | None, param: str) -> int:
    low, high = EXPIRY_SECONDS
    text = str(given)
    if not (text.isascii() and text.isdigit()) or not low <= int(text[:12]) <= high:
        raise InvalidRequest(f"'{param}' must be a number of seconds from {low} to {high}.", param=param)
    return int(text)
