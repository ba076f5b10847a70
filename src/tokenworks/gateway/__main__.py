"""`python -m tokenworks.gateway`: one gateway process."""

import sys

from tokenworks.gateway.app import main
from tokenworks.gateway.settings import read

sys.exit(main(read(sys.argv[1:])))
