# `make up` runs the service, `make test` its tests; both make the environment when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: help install up test slow cluster mutants check format migration bench lock dist docs

help: ## Say what there is
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST)

$(BIN)/pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "densityd needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

# A stamp a set of packages: what runs the service, and what develops it. All are pinned, and but
# for torch, whose build depends on the machine, known by their hashes.
LOCKS := requirements/run.lock requirements/dev.lock requirements/torch.txt
# pip shows the progress of each download.
$(VENV)/.run-stamp: pyproject.toml $(LOCKS) | $(BIN)/pip
	@echo "Installing what densityd needs: 200 MB, then PyTorch: 160 MB for processors, 3 GB with CUDA."
	$(BIN)/pip install --require-hashes --requirement requirements/run.lock
	$(BIN)/pip install --requirement requirements/torch.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.dev-stamp: $(VENV)/.run-stamp
	$(BIN)/pip install --quiet --require-hashes --requirement requirements/dev.lock
	touch $@

# Compiled once here, not by the first process that computes; `densityd up` does so by itself.
$(VENV)/.loops-stamp: $(wildcard flows/engine/*.py flows/engine/*/*.py) | $(VENV)/.run-stamp
	@echo "Compiling kernels for this processor, once: about a minute on two cores."
	@$(BIN)/python -m densityd.service.kernels $(VENV)
	@touch $@

# The generator is no part of what runs the service; a guide that is there serves.
GUIDE := app/site/guide
define BUILD_GUIDE
$(BIN)/pip install --quiet --require-hashes --requirement requirements/docs.lock
$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --doctree-dir $(VENV)/guide docs $(GUIDE)
endef
$(GUIDE): | $(VENV)/.run-stamp
	$(BUILD_GUIDE)

install: $(VENV)/.dev-stamp $(VENV)/.loops-stamp ## Make the environment, development tools included

up: $(VENV)/.run-stamp $(GUIDE) ## Start the whole service on 127.0.0.1:8000; Ctrl-C stops it
	@exec $(BIN)/densityd up

# Compiled modules are kept: the tests start many processes that import the same. Three workers keep
# two processors busy: many tests wait for processes. Slow ones wait longer.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/pytest --numprocesses=3
# The folders that wait longest come first.
FIRST := tests/service/ tests/jobs/
FOLDERS := $(FIRST) $(filter-out $(FIRST) %__pycache__/,$(wildcard tests/*/))
test: install $(GUIDE) ## Run the tests, with real Redis and PostgreSQL
	$(PYTEST) $(FOLDERS)

# A generator of clients has an environment of its own: its typer is older than that of the service.
$(VENV)/generator:
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet openapi-python-client==0.29.1

# Of marked tests, the files that hold them: each process would take ten seconds to read all others.
marked = -m "($(subst |, or ,$(1))) and not gpu $(2)" \
  $(shell grep -rlE --include='test_*.py' 'mark\.($(1))\b' $(FOLDERS))

slow: install $(GUIDE) $(VENV)/generator ## Run the tests that take longer, and those in a browser
	$(PYTEST) --numprocesses=4 $(call marked,slow|browser,and not cluster)
	$(PYTEST) --dist=load --jaxtyping-packages=flows,beartype.beartype tests/flows/test_conformance.py  # types and shapes

cluster: install ## Run the tests of S3, TLS, Sentinel, proxies and the chart
	$(BIN)/pip install --quiet --group deploy
	$(PYTEST) $(call marked,cluster,and not slow)

# The folders that pyproject.toml names. All of TESTS run once before the first change: name those alone that could
# notice one.
MUTANT_TESTS := $(addprefix tests/,api/account api/auth flows jobs store tables)
MUTANTS ?=
TESTS ?= $(MUTANT_TESTS)
mutants: install ## Change the code line by line, and print which changes no test notices; MUTANTS="tabular.ingest.*" TESTS=tests/tables
	$(BIN)/pip install --quiet --group mutants
	PYTEST_ADDOPTS="$(patsubst %,--ignore-glob=%/*,$(filter-out $(TESTS),$(MUTANT_TESTS)))" $(BIN)/mutmut run $(MUTANTS)
	$(BIN)/mutmut results

check: install ## Format, lint, types, dependency rules, dead code, spelling, known holes, migrations, guide
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/client_schema.py --check
	$(BIN)/python tools/sync_client.py --check
	$(BIN)/deptry .
	$(BIN)/pip check
	$(BIN)/vulture
	$(BIN)/codespell
	$(BIN)/pip-audit --disable-pip --no-deps --progress-spinner off --requirement requirements/dev.lock
	$(MAKE) --no-print-directory docs
	folder=$$(mktemp -d) && export DENSITYD_DATA_DIR=$$folder && $(BIN)/densityd migrate && \
	  $(BIN)/alembic check; status=$$?; rm -rf $$folder; exit $$status

NAME ?= $(error say what changes, as in: make migration NAME=origins)
migration: install ## Write the migration of what changed in the schema; NAME=origins names it
	folder=$$(mktemp -d) && export DENSITYD_DATA_DIR=$$folder && $(BIN)/densityd migrate && \
	  $(BIN)/alembic revision --autogenerate --rev-id $$(date +%Y_%m_%d)_$(NAME) -m "$(NAME)"; \
	  status=$$?; rm -rf $$folder; exit $$status

format: install ## Format the code, and generate the client from the API
	$(BIN)/python tools/client_schema.py
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python tools/sync_client.py

BENCH ?= flows --quick
bench: install ## Measure speed and memory; BENCH="serving" names the program
	$(BIN)/pip install --quiet --editable . --group bench
	$(BIN)/python -m bench $(BENCH)

# Pins that are there stay, unless UPGRADE=--upgrade; torch.txt is edited by hand.
UV = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header --no-emit-package torch --constraint requirements/torch.txt $(UPGRADE)
lock: install ## Pin what pyproject.toml asks for, with hashes; UPGRADE=--upgrade takes the newest
	$(BIN)/pip install --quiet --group supply
	echo 'setuptools>=80' | $(UV) --output-file requirements/run.lock pyproject.toml -
	$(UV) --output-file requirements/dev.lock requirements/run.lock pyproject.toml --extra onnx --group dev
	$(UV) --output-file requirements/image.lock --constraint requirements/dev.lock requirements/run.lock pyproject.toml --extra onnx --extra traces
	$(UV) --output-file requirements/docs.lock --constraint requirements/dev.lock --group docs

dist: install docs ## Build the service, its client alone, its flows alone, and a list of what an image holds, in dist/
	$(BIN)/pip install --quiet --group supply
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m build --outdir dist densityd/client
	$(BIN)/python -m build --outdir dist flows
	cat requirements/run.lock requirements/torch.txt | \
	  $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-file dist/sbom.json -

docs: $(VENV)/.run-stamp ## Build the documentation site, which a service shows at /guide
	$(BUILD_GUIDE)
