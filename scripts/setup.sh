#!/bin/sh
# Find a Python, and hand over to setup.py, which needs nothing but the standard library.
set -u
cd "$(dirname "$0")/.." || exit 1
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 python3.14 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        exec "$candidate" scripts/setup.py "$@"
    fi
done
echo "setup: no Python 3.11 or newer was found; install one, or name it: make PYTHON=/path/to/python ..." >&2
exit 1
