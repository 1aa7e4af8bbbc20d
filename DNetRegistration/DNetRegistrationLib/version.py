"""The version, alone in a file that imports nothing, so that packaging and reports read the same one."""

__version__ = "0.1.0"

#: The name of the command.
PROGRAM = "dnet-registration"
