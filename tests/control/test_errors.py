"""A database that refuses: clear answers, nothing acknowledged, and gateways still learn of replicas."""

import sqlite3

from tokenworks.journal import framing

TABLES = ("api_keys", "usage", "replicas")


def _break(path, broken=True):
    """Every new row fails, as it does on a full disk."""
    database = sqlite3.connect(path)
    for table in TABLES:
        if broken:
            database.execute(
                f"CREATE TRIGGER no_{table} BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
            )
        else:
            database.execute(f"DROP TRIGGER no_{table}")
    database.commit()
    database.close()


def test_a_database_that_cannot_be_written(control, make):
    process = control("--local-model", "smollm2-135m").start()
    batch = bytearray()
    framing.append(batch, make.settled(1))
    calls = [
        lambda: process.admin("POST", "/admin/v1/keys", {"name": "n"}),
        lambda: process.internal("POST", "/internal/v1/journal/gw?first=0", bytes(batch)),
        lambda: process.internal("PUT", "/internal/v1/replicas/r", make.heartbeat()),
    ]

    _break(process.data_dir / "control.db")
    for call in calls:
        answer = call()
        assert answer.status == 503
        assert answer.error == {
            "message": "The database is not available.",
            "type": "server_error",
            "param": None,
            "code": "database",
        }
    assert len(process.admin("GET", "/admin/v1/keys").json["data"]) == 1
    assert process.admin("GET", "/admin/v1/usage").json["totals"]["attempts"] == 0
    assert process.admin("GET", "/admin/v1/models").json["data"][0]["targets"][0]["state"] == "ready"

    _break(process.data_dir / "control.db", broken=False)
    assert [call().status for call in calls] == [201, 200, 204]
    process.close()
    process.start()
    assert process.admin("GET", "/admin/v1/models").json["data"][0]["replicas"][0]["id"] == "r"
