"""`python -m stress` is what `./run torture` becomes."""

from stress.command import torture

torture(prog_name="./run torture")
