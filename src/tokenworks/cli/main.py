"""The console script `tokenworks`."""

import os
import sys

PLANES = ("gateway", "control", "worker")


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] in PLANES:
        os.execv(sys.executable, [sys.executable, "-m", f"tokenworks.{sys.argv[1]}", *sys.argv[2:]])  # noqa: S606
    from tokenworks.cli.app import run  # a plane must stay small: nothing for people is imported before it

    run(sys.argv[1:])
