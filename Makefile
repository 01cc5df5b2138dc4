# The two commands: `make demo` shows the main job, `make test` proves it. Both make their own .venv.
PYTHON ?=
ARGS ?=

.PHONY: help setup setup-dev demo test interop chaos lint types check lock bench mcpb clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup:  ## Make .venv and install what interhub needs
	@PYTHON="$(PYTHON)" sh scripts/setup.sh core

setup-dev:  ## The same, and what its tests need
	@PYTHON="$(PYTHON)" sh scripts/setup.sh dev

demo: setup  ## A goal carried out by LangGraph, CrewAI, an A2A agent and an MCP server (ARGS=--once ends by itself)
	@.venv/bin/python examples/demo/demo.py $(ARGS)

test: setup-dev  ## Every test, two at a time (ARGS="tests/hub -k name" runs some, one at a time)
	@.venv/bin/python -m pytest $(or $(ARGS),-n 2)

interop: setup-dev  ## Agents and clients of other frameworks against the hub, those with large environments too
	@INTERHUB_INTEROP=1 .venv/bin/python -m pytest tests/interop

chaos: setup-dev  ## Kill, freeze and restart under load, for about half an hour (ARGS="--seeds 2 --only cluster")
	@.venv/bin/python -m tests.chaos $(ARGS)

lint: setup-dev  ## Style and import rules
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/lint-imports --no-cache

types: setup-dev  ## mypy and pyright, both strict
	@.venv/bin/mypy && .venv/bin/pyright

check: lint types  ## All static checks

lock: setup-dev  ## Resolve the hash-locked requirements anew
	@sh scripts/lock.sh

bench: setup-dev  ## Every benchmark, one after the other
	@for program in benchmarks/*.py; do echo "== $$program"; .venv/bin/python "$$program"; done

mcpb: setup-dev  ## The bundle for Claude Desktop: dist/interhub-VERSION.mcpb
	@.venv/bin/python scripts/mcpb.py $(ARGS)

clean:  ## Remove what setup, tests and demo made
	rm -rf .venv .interhub build dist *.egg-info .mypy_cache .ruff_cache
