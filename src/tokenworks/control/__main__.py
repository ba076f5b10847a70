"""`python -m tokenworks.control`"""

import gc
import sys

gc.disable()  # what is imported stays: to look through it over and over takes a seventh of the start

from tokenworks.control.app import main  # noqa: E402

gc.freeze()  # nor is it looked through later, or once more at the end, for most of a second
gc.enable()
sys.exit(main())
