"""What is lost and what is billed twice when processes are killed under load: gateway, control, PostgreSQL, Valkey."""

import os
import random
import tempfile
import time
from pathlib import Path

from tests.disasters import ROUNDS as ROUNDS_OF_TEST
from tests.disasters import fleet, reckon, rounds, visible_after

ROUNDS = int(os.environ.get("TOKENWORKS_BENCH_ROUNDS", ROUNDS_OF_TEST))


def main() -> None:
    seed = random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="tw-losses-") as directory, fleet(Path(directory)) as everything:
        begun = time.monotonic()
        load = rounds(everything, ROUNDS, random.Random(seed))
        found = reckon(everything, load)
        seconds = time.monotonic() - begun
        visible = sorted(visible_after(everything, 30))
    killed = ", ".join(f"{name} {count}" for name, count in sorted(everything.killed.items()))
    print(f"kill -9 under load, {ROUNDS} rounds in {seconds:.0f} s, seed {seed}: {killed}")
    print(f"{'answers that callers saw the end of':44}{found.answered:16,}")
    print(f"{'nano-dollars that they were told':44}{found.told:16,}")
    print(f"{'nano-dollars billed, cut answers included':44}{found.billed:16,}")
    print(f"{'streams cut with their gateway':44}{found.cut:16,}")
    print(f"{'tokens received of them':44}{found.cut_received:16,}")
    print(f"{'tokens billed of them':44}{found.cut_paid:16,}")
    print(f"{'answers without a bill':44}{found.missing:16,}")
    print(f"{'answers billed twice':44}{found.doubled:16,}")
    print(f"{'bills that differ from what was told':44}{found.wrong:16,}")
    print(f"{'bills that nobody asked for':44}{found.unasked:16,}")
    print(f"{'attempts that are still open':44}{found.open:16,}")
    print(f"{'differences of ledger and usage':44}{len(found.ledger):16,}")
    for line in found.ledger:
        print("  " + line)
    print(f"{'streams cut without an error':44}{len(load.garbled):16,}")
    print(f"{'usage visible after an answer, s: median':44}{visible[len(visible) // 2]:16.2f}")
    print(f"{'the same, worst of 30':44}{visible[-1]:16.2f}")


if __name__ == "__main__":
    main()
