"""Starting, supervising and ending the programs of an installation on this machine: workers, beat, Flower and web."""

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
FLOWER_CONFIG = _ROOT / "flowerconfig.py"
COMMAND = "./run" if (_ROOT / "run").exists() else "python -m workers"
"""How a user starts a command: an image and an installed package have no `./run`."""
_WITHOUT_SUPERVISOR = {
    "restart them: ./run down, then ./run up": "restart them",
    "run ./run down, then ./run up": "restart the workers and beat",
    "run ./run up": "start the workers and beat",
}
READY_FILE_ENV = "UNWIND_READY_FILE"
"""Variable naming the file that a program touches once it takes work."""
ALIVE_FILE_ENV = "UNWIND_ALIVE_FILE"
"""Variable naming the file that a program touches while it makes progress."""


def name_commands(text: str) -> str:
    """Replace `./run` in a text for the user by the command that works here."""
    if COMMAND != "./run":
        for before, after in _WITHOUT_SUPERVISOR.items():
            text = text.replace(before, after)
    return text.replace("./run", COMMAND)
