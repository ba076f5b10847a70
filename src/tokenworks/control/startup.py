"""What can keep control from starting, as one line for the terminal."""


class StartupError(Exception):
    """Printed as it is; the process exits with code 2."""
