"""The HTTP interface and the Problem Order page: a process that submits commands and reads, and executes no task."""
