"""`python -m benchmarks [NAME ...]`: all of them, or those named."""

import sys
from importlib import import_module

NAMES = ("journal", "prices", "protocols", "routing", "startup", "gateway", "batches", "engine")
ON_REQUEST = ("gateways", "losses", "billing", "limits", "tenants", "guesses", "prefixes")
"""Only when they are named: they take minutes, or install other people's software."""


def main() -> int:
    asked = sys.argv[1:] or NAMES
    unknown = [name for name in asked if name not in (*NAMES, *ON_REQUEST)]
    if unknown:
        print(f"unknown benchmark {', '.join(unknown)}; there are: {', '.join((*NAMES, *ON_REQUEST))}", file=sys.stderr)
        return 2
    for name in asked:
        import_module(f"benchmarks.{name}").main()
    return 0


sys.exit(main())
