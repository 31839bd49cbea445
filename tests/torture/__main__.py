"""`python -m tests.torture` is what `./run torture` becomes."""

from tests.torture.command import torture

torture(prog_name="./run torture")
