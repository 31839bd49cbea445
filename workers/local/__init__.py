"""Programs of an installation on this machine: starting, supervising and ending them."""

from pathlib import Path

FLOWER_CONFIG = Path(__file__).resolve().parents[2] / "flowerconfig.py"
READY_FILE_ENV = "UNWIND_READY_FILE"
"""Variable naming the file that a program touches once it takes work."""
ALIVE_FILE_ENV = "UNWIND_ALIVE_FILE"
"""Variable naming the file that a program touches while it makes progress."""
