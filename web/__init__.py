"""The HTTP interface and the Problem Order page: a process that submits commands and serves reads, without tasks."""
