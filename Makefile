# The first of the tested versions that starts (a name alone may be the shim of a version that is not there).
PYTHON ?= $(shell for python in python3.11 python3.12; do $$python -c "" 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
LOG := $(VENV)/install.log

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format leaderboard mutants clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## make .venv and install the package with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c "import sys; sys.exit(sys.version_info < (3, 11))" 2>/dev/null || \
		{ echo "PYTHON='$(PYTHON)': Python 3.11 or 3.12 is needed: set PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@echo "installing into $(VENV): some minutes, 7 GB; what pip says: $(LOG)"
	@$(BIN)/python -m pip install --progress-bar off --constraint constraints.txt --editable ".[eval,dev]" >$(LOG) 2>&1 || \
		{ tail -n 15 $(LOG); echo "pip failed; all that it said: $(LOG)"; exit 1; }
	@touch $(STAMP)

demo: setup ## four methods, two budgets on the embedded model: a table, pages, a picture (under 5 minutes)
	@HF_HUB_OFFLINE=1 $(BIN)/swiftvlm-eval demo --out demo_run

leaderboard: setup ## regenerate leaderboards/ from the committed records and published numbers
	$(BIN)/python scripts/make_leaderboards.py

test: setup ## the tests (CPU, no network)
	HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

check: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: setup ## 120 random small faults, each against the tests of its file (about an hour; goes on after a kill)
	$(BIN)/python scripts/mutants.py --out runs/mutants

format: setup ## ruff's formatter and safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## forget .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
