"""How a user starts a command here: `./run` in a checkout, `python -m workers` in an image or an installed package."""

from pathlib import Path

RUN_COMMAND = "./run" if (Path(__file__).resolve().parents[2] / "run").exists() else "python -m workers"
_RUN_COMMAND_REPLACEMENTS = {
    "restart them: ./run down, then ./run up": "restart them",
    "run ./run down, then ./run up": "restart the workers and beat",
    "run ./run up": "start the workers and beat",
}


def replace_run_command(text: str) -> str:
    """Replace `./run` in a text for the user by the command that works here."""
    if RUN_COMMAND != "./run":
        for before, after in _RUN_COMMAND_REPLACEMENTS.items():
            text = text.replace(before, after)
    return text.replace("./run", RUN_COMMAND)
