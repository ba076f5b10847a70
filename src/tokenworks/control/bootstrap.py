"""The first start: one organization, project, API key and admin key, and `bootstrap.json` that tells them."""

import json
import logging
from pathlib import Path

from tokenworks.control import keys
from tokenworks.control.keys import Secret
from tokenworks.control.startup import StartupError
from tokenworks.control.storage import admin_keys, api_keys, tenants
from tokenworks.control.storage.database import Database
from tokenworks.core.files import write_atomically

log = logging.getLogger(__name__)


async def bootstrap(database: Database, path: Path, now: int) -> None:
    """Does nothing when there is an organization.

    The file is on disk before the rows are committed, and a file that is there is used again: whenever the
    process dies, the next start ends with a file whose keys work.
    """
    async with database.write() as connection:
        if not await tenants.is_empty(connection):
            return
        secrets = _read(path)
        if secrets is None:
            secrets = Secret.generate(keys.API_PREFIX), Secret.generate(keys.ADMIN_PREFIX)
            _write(path, *secrets)
        api_key, admin_key = secrets
        project = await tenants.create_organization(connection, "default", now)
        await api_keys.create(connection, api_key, project.id, "bootstrap", now=now)
        await admin_keys.create(connection, admin_key, project.organization_id, "bootstrap", "operator", now=now)
    log.info("first start: wrote %s", path)


def _read(path: Path) -> tuple[Secret, Secret] | None:
    try:
        content = json.loads(path.read_bytes())
        api_key, admin_key = str(content["api_key"]), str(content["admin_key"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        log.warning("%s cannot be used and is written anew", path)
        return None
    usable = keys.well_formed(api_key) and keys.well_formed(admin_key) and admin_key.startswith(keys.ADMIN_PREFIX)
    return (Secret(api_key), Secret(admin_key)) if usable else None


def _write(path: Path, api_key: Secret, admin_key: Secret) -> None:
    content = json.dumps({"api_key": api_key.text, "admin_key": admin_key.text}, indent=2) + "\n"
    try:
        write_atomically(path, content.encode())
    except OSError as error:
        raise StartupError(f"cannot write {path}: {error.strerror}") from error
