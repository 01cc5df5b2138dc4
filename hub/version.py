"""Which interhub this is."""

from importlib.metadata import version

VERSION = version("interhub")
