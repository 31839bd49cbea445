"""Entry point of `python -m stress`, which `./run torture` executes."""

from stress.command import torture

torture(prog_name="./run torture")
