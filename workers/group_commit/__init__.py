"""Group commit: single commands that wait for a pool process run together, in one transaction for each kind.

`dispatcher` is the half in the worker's parent process, `execution` the half in a pool process.
docs/decisions/0027-group-commit.md has the reasons.
"""
