"""The command line: a module a command, with `add_parser` and `run`, which turns options into a call of a room."""
