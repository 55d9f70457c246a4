# `make up` runs the service, `make test` its tests; both make the environment when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: help install up test check format bench fuzz docs

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST)

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "densityd needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# A stamp a set of packages: what runs the service, and what develops it.
$(VENV)/.run-stamp: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev-stamp: $(VENV)/.run-stamp
	$(BIN)/pip install --quiet --editable . --group dev
	touch $@

install: $(VENV)/.dev-stamp ## Make the environment, development tools included

up: $(VENV)/.run-stamp ## Start the whole service on 127.0.0.1:8000; Ctrl-C stops it
	@exec $(BIN)/densityd up

# Compiled modules are kept: the tests start many processes that import the same.
test: install ## Run the tests, with real Redis and PostgreSQL
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

check: install ## Format, lint, types, dependency rules, dead code, spelling, migrations
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/vulture
	$(BIN)/codespell
	folder=$$(mktemp -d) && export DENSITYD_DATA_DIR=$$folder && $(BIN)/densityd migrate && \
	  $(BIN)/alembic check; status=$$?; rm -rf $$folder; exit $$status

format: install ## Put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Measure speed and memory against peers (minutes)
	$(BIN)/pip install --quiet --editable . --group bench
	$(BIN)/python -m bench

SECONDS ?= 60
fuzz: install ## Fuzz what reads strangers' bytes; SECONDS=60 for each of 17 targets
	$(BIN)/pip install --quiet --editable . --group fuzz
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

docs: install ## Write docs/openapi.json from the code
	$(BIN)/python -c 'import json; from app.main import create_app; from app.settings import ApiSettings; \
	  print(json.dumps(create_app(ApiSettings()).openapi(), indent=2))' > docs/openapi.json
