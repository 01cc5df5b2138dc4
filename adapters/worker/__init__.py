"""Agents of a framework, each in a process and an environment of its own."""
