"""`python -m tokenworks.control`"""

import sys

from tokenworks.control.app import main

sys.exit(main())
