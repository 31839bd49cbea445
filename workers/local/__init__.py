"""Programs of an installation on this machine: starting, supervising and ending them."""

READY_FILE = "UNWIND_READY_FILE"
"""Variable naming the file that a program touches once it takes work."""
ALIVE_FILE = "UNWIND_ALIVE_FILE"
"""Variable naming the file that a program touches while it makes progress."""
