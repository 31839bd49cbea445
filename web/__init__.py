"""The HTTP interface: a process of its own that submits commands and reads, and never executes a task."""
