"""Starting, supervising and ending the programs of an installation on this machine: workers, beat, Flower and web."""

from pathlib import Path

FLOWER_CONFIG = Path(__file__).resolve().parents[2] / "flowerconfig.py"
TOKEN_ENV = "UNWIND_SUPERVISED"  # noqa: S105 - a variable by which a supervisor recognises its own processes
READY_FILE_ENV = "UNWIND_READY_FILE"  # names the file that a supervised program touches once it takes work
ALIVE_FILE_ENV = "UNWIND_ALIVE_FILE"  # names the file that a supervised program touches while it makes progress
