# Two commands: `make run` judges the bundled examples, `make test` shows that every behaviour holds.
NEW    := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
# the newest one that was tried; where there is none, whatever python3 is new enough
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3; do \
	"$$p" $(NEW) 2>/dev/null && command -v "$$p" && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
TORCH  ?= torch==2.13.0
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help run test test-all check fix docs clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "no Python of version 3.11 or later is on the path; install one, or give PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: $(VENV)/.base  ## install without torch, then judge the bundled example exchanges
	$(BIN)/guardreasoner check --examples --mode full

test: $(VENV)/.dev  ## every behaviour once
	$(PYTEST) -q -m 'not slow and not gpu'

test-all: $(VENV)/.dev  ## kill/resume loops, load, real clients, browser, the smoke road
	$(PYTEST) -q -m 'slow and not gpu'

check: $(VENV)/.dev  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(VENV)/.dev  ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.base  ## write docs/commands.md, docs/api.md and docs/fields.md from the code
	$(BIN)/python docs/commands.py
	$(BIN)/python docs/fields.py
	$(BIN)/python docs/api.py

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
