"""What runs inside a worker: the wire, and one file for each framework. Needs nothing but Python's own library.

The hub starts `start.py` by its path in the framework's environment, where no part of interhub is installed; the files
of this folder are there the package `interhub_worker`.
"""
