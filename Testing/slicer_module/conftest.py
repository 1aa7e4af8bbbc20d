"""The stand-in for Slicer, for all tests of the Slicer module."""

from slicer_host.fixtures import host  # noqa: F401
