#!/bin/sh
# Resolve every hash-locked requirements file anew. No index address is written into them.
set -eu
cd "$(dirname "$0")/.."
compile() { .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url "$@"; }
compile pyproject.toml --output-file requirements/core.txt
compile pyproject.toml --group dev --constraint requirements/core.txt --output-file requirements/dev.txt
compile requirements/build.in --constraint requirements/dev.txt --output-file requirements/build.txt
for source in adapters/worker/requirements/*.in examples/requirements/*.in tests/adapters/requirements/*.in tests/interop/requirements/*.in; do
    [ -e "$source" ] || continue
    compile "$source" --output-file "${source%.in}.txt"
done
