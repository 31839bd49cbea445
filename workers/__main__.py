"""Entry point of `python -m workers`, the same as `./run` and the installed script `unwind`."""

from workers.cli import main

if __name__ == "__main__":
    main()
