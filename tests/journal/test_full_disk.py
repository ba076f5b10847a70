"""A disk that is really full: a tmpfs of 24 MB in a mount namespace of its own. (test_writer.py has the same with a
disk that is made up, for where no such namespace may be made.)"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

INSIDE = """
import asyncio, json, sys
from pathlib import Path
from tokenworks.journal.framing import read_batch
from tokenworks.journal import writer
from tokenworks.journal.records import Opened, Settled, UsageRecord
from tokenworks.journal.writer import Journal, JournalFull, JournalSettings

writer.PROBE_SECONDS = 0.0
directory = Path(sys.argv[1])
ballast = directory / "ballast"
ballast.write_bytes(b"x" * (20 << 20))

def opened(n):
    return Opened(f"req_{n}", 1, n, "key", "proj", "org", "openai_chat", "m", "up", "p", "m-1", True)

def settled(n):
    return Settled(f"req_{n}", 1, n, "completed", UsageRecord(7, 0, 0, 99), 99)

async def main():
    settings = JournalSettings(segment_bytes=1 << 16, disk_limit=1 << 24, sync_seconds=0.01)
    journal = Journal.open(directory / "journal", settings)
    admitted = refused = 0
    for n in range(200_000):
        try:
            journal.append(opened(n))
        except JournalFull as error:
            refused, reason = refused + 1, str(error)
            break
        journal.flush()
        admitted += 1
        if n % 20 != 0:  # most end at once, some stay open for long
            journal.append(settled(n))
        if n % 500 == 0:
            await asyncio.sleep(0)
    for n in range(0, admitted, 20):
        journal.append(settled(n))
    ballast.unlink()
    journal._probe_at = 0.0
    journal.append(opened(admitted))
    journal.append(settled(admitted))
    await journal.commit()
    await journal.close()
    again = Journal.open(directory / "journal", settings)
    seen = set()
    while (batch := again.read()) is not None:
        seen |= {record.request_id for record in read_batch(batch.data) if isinstance(record, Settled)}
        again.acknowledge(batch.end)
    await again.close()
    print(json.dumps({"admitted": admitted, "refused": refused, "reason": reason, "settled": len(seen)}))

asyncio.run(main())
"""


def test_a_small_tmpfs_fills_up_and_nothing_is_lost(tmp_path: Path) -> None:
    script = tmp_path / "inside.py"
    script.write_text(textwrap.dedent(INSIDE))
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = f"mount -t tmpfs -o size=24m tmpfs {disk} && exec {sys.executable} {script} {disk}"
    probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(disk)], capture_output=True)
    if probe.returncode != 0:
        pytest.skip("no mount namespace may be made here")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mounted], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["refused"] == 1
    assert "No space left on device" in told["reason"]
    assert told["admitted"] > 1000
    assert told["settled"] == told["admitted"] + 1
