"""`python -m tokenworks.worker`."""

import sys

from tokenworks.worker.app import main

sys.exit(main())
