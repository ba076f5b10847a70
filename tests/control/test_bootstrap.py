"""The first start leaves a file whose keys work, whenever it was interrupted."""

import asyncio
import json
import stat

import pytest
from sqlalchemy import select

from tokenworks.control import bootstrap, keys
from tokenworks.control.keys import Secret
from tokenworks.control.startup import StartupError
from tokenworks.control.storage import admin_keys, tables, tenants
from tokenworks.control.storage.tables import api_keys

pytestmark = pytest.mark.both_databases


async def _works(database, path) -> bool:
    content = json.loads(path.read_text())
    async with database.read() as connection:
        digests = (await connection.execute(select(api_keys.c.digest))).scalars().all()
        assert digests == [Secret(content["api_key"]).digest]
        assert (await connection.execute(select(tables.admin_keys.c.id))).all()
        return await admin_keys.find_active(connection, Secret(content["admin_key"]).digest, 0) is not None


def test_once(with_database, tmp_path):
    path = tmp_path / "bootstrap.json"

    async def work(database):
        await bootstrap.bootstrap(database, path, 1)
        written = path.read_bytes()
        await bootstrap.bootstrap(database, path, 2)
        assert path.read_bytes() == written
        assert await _works(database, path)

    with_database(work)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_death_between_the_file_and_the_commit(with_database, tmp_path, monkeypatch):
    path = tmp_path / "bootstrap.json"

    async def die(*_, **named):
        raise asyncio.CancelledError

    async def work(database):
        with monkeypatch.context() as patch:
            patch.setattr(admin_keys, "create", die)
            with pytest.raises(asyncio.CancelledError):
                await bootstrap.bootstrap(database, path, 1)
        told = path.read_bytes()
        await bootstrap.bootstrap(database, path, 2)
        assert path.read_bytes() == told  # whoever has read it already may keep what it says
        assert await _works(database, path)

    with_database(work)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"api_key": "x", "admin_key": "y"}', '{"api_key": null}'])
def test_an_unusable_file_is_written_anew(with_database, tmp_path, content):
    path = tmp_path / "bootstrap.json"
    path.write_text(content)

    async def work(database):
        await bootstrap.bootstrap(database, path, 1)
        assert await _works(database, path)

    with_database(work)


def test_a_removed_file_is_not_made_again(with_database, tmp_path):
    path = tmp_path / "bootstrap.json"

    async def work(database):
        await bootstrap.bootstrap(database, path, 1)
        path.unlink()
        await bootstrap.bootstrap(database, path, 2)

    with_database(work)
    assert not path.exists()


def test_no_room_for_the_file(with_database, tmp_path):
    async def work(database):
        with pytest.raises(StartupError, match="cannot write"):
            await bootstrap.bootstrap(database, tmp_path / "absent" / "bootstrap.json", 1)
        async with database.read() as connection:
            assert await tenants.is_empty(connection)

    with_database(work)


def test_the_shape_of_keys():
    secret = Secret.generate(keys.ADMIN_PREFIX)
    assert keys.well_formed(secret.text)
    assert secret.text not in repr(secret)
    assert len(Secret.generate(keys.API_PREFIX).text) == len("sk-tw-") + 43
