"""`python -m tokenworks.control`"""

import gc
import sys

from tokenworks.control.app import main

code = main()
gc.freeze()  # or Python would look through everything imported once more, for most of a second
sys.exit(code)
