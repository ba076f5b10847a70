"""Batches as gateways send them: again, overlapping, with gaps, damaged, and into a process that is killed."""

import threading

import pytest

from tokenworks.journal import framing
from tokenworks.journal.records import Opened, Settled, UsageRecord

pytestmark = pytest.mark.both_databases


@pytest.fixture(scope="module")
def running(control_process, database_options):
    with control_process(*database_options) as process:
        yield process


def _batch(records):
    body = bytearray()
    for record in records:
        framing.append(body, record)
    return bytes(body)


def _send(process, gateway, first, records, oldest=False):
    path = f"/internal/v1/journal/{gateway}?first={first}" + ("&oldest=1" if oldest else "")
    answer = process.internal("POST", path, _batch(records))
    assert answer.status == 200, answer.raw
    return answer.json["acknowledged"]


def _records(name, count):
    for number in range(count):
        at = 1_800_000_000_000_000_000 + number
        yield Opened(f"{name}_{number:06d}", 1, at, "key", "proj", "org", "openai_chat", name, "up", "p", "m-1")
        yield Settled(f"{name}_{number:06d}", 1, at + 9, "completed", UsageRecord(1, 0, 0, number), number)


def _totals(process, model):
    return process.admin("GET", f"/admin/v1/usage?model={model}&limit=1").json["totals"]


def test_positions(running):
    records = list(_records("positions", 5))
    assert _send(running, "gw_p", 0, records[:4]) == 4
    assert _send(running, "gw_p", 0, records[:4]) == 4
    assert _send(running, "gw_p", 2, records[2:6]) == 6
    assert _send(running, "gw_p", 8, records[8:]) == 6, "a gap: it goes back"
    assert _send(running, "gw_p", 6, records[6:]) == 10
    assert _send(running, "gw_p", 10, []) == 10
    totals = _totals(running, "positions")
    assert (totals["attempts"], totals["outcomes"], totals["charge"]) == (5, {"completed": 5}, 10)


def test_a_gateway_whose_past_is_gone_is_taken_as_it_is(running):
    records = list(_records("past", 2))
    assert _send(running, "gw_past", 1000, records) == 0
    assert _send(running, "gw_past", 1000, records, oldest=True) == 1004


def test_two_gateways_have_positions_of_their_own(running):
    records = list(_records("two", 2))
    assert _send(running, "gw_a", 0, records) == 4
    assert _send(running, "gw_b", 0, records[:1]) == 1


def test_a_damaged_batch_changes_nothing(running):
    body = _batch(_records("damaged", 3))
    for broken in (body[:-1], body[:-1] + b"\x00", body + b"\x00", b"\x01\x00\x00\x00\x00\x00\x00\x00x"):
        answer = running.internal("POST", "/internal/v1/journal/gw_d?first=0", broken)
        assert (answer.status, answer.error["code"]) == (400, "journal_batch")
    assert _totals(running, "damaged")["attempts"] == 0
    assert _send(running, "gw_d", 0, []) == 0


def test_an_impossible_record_does_not_hold_up_the_others(running):
    records = list(_records("impossible", 2))
    bad = Settled("impossible_bad", 1, 1, "completed", UsageRecord(output=2**64 - 1))
    assert _send(running, "gw_i", 0, [records[0], bad, *records[1:]]) == 5
    assert _totals(running, "impossible")["outcomes"] == {"completed": 2}


def test_bad_parameters(running):
    for path, param in (("gw_x", "first"), ("gw_x?first=-1", "first"), ("gw_x?first=0&oldest=q", "oldest")):
        answer = running.internal("POST", f"/internal/v1/journal/{path}", b"")
        assert (answer.status, answer.error["param"]) == (400, param)
    assert running.internal("POST", "/internal/v1/journal/g%20w?first=0", b"").error["param"] == "gateway_id"


def test_kill_during_ingest_then_sending_again_gives_exact_rows(control):
    process = control().start()
    records = list(_records("killed", 4000))
    batches = [(first, records[first : first + 400]) for first in range(0, len(records), 400)]
    sent = threading.Event()

    def ship():
        try:
            for number, (first, chunk) in enumerate(batches):
                if number == 3:
                    sent.set()
                _send(process, "gw_k", first, chunk)
        except (OSError, AssertionError):
            return

    for _ in range(3):
        sent.clear()
        thread = threading.Thread(target=ship)
        thread.start()
        assert sent.wait(30)
        process.close()
        thread.join()
        process.start()

    wanted = 0
    while wanted < len(records):
        wanted = _send(process, "gw_k", wanted, records[wanted : wanted + 700])
    totals = _totals(process, "killed")
    assert totals["outcomes"] == {"completed": 4000}
    assert totals["usage"]["output"] == totals["charge"] == sum(range(4000))
