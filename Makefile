# `make demo` and `make test` do all of their own set-up, in .venv; nothing outside this folder is touched.
# `-qq`: with one q, pip prints a page about editable installations.

PYTHON ?= python3
BIN := .venv/bin
EXTRAS := $(if $(shell command -v nvidia-smi),[gpu])

# Processes of `make test`. Tests wait for a third of their time, for brokers and session timeouts, so half as many again
# as cores keep the cores busy. Each takes about 1 GiB of memory. The order of files is that of tests/conftest.py.
PROCESSES ?= $(shell expr $$(nproc) '*' 3 / 2)

.PHONY: help demo test quick faults lint format docs wheel bare check-deploy clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | sed -E 's/:.*  ## /\t/' | expand -t 16

demo: .venv/installed  ## translate the sample photos and write a before/after page
	$(BIN)/solstice convert samples demo-output/winter --model summer2winter --report
	$(BIN)/solstice convert samples demo-output/summer --model winter2summer --report
	@echo "Open demo-output/winter/report.html and demo-output/summer/report.html in a browser."

test: .venv/installed-for-tests  ## run all tests; needs no GPU and, once installed, no network
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

quick: .venv/installed-for-tests  ## run the tests that take seconds
	$(BIN)/python -m pytest $(QUICK)

faults: .venv/installed-for-tests  ## kill, fill and mutate for some minutes, and count what is left
	PYTHONWARNINGS=ignore $(BIN)/python -m tests.faults.campaign

lint: .venv/installed-for-tests  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-for-tests  ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed-for-docs  ## build the documentation into build/site; a dead link is an error
	NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --quiet

wheel:  ## build the wheel into dist/ and try it in an empty environment
	sh .ci/try-wheel $(PYTHON)

bare:  ## try the software of a bare GPU machine, without a GPU; downloads 3 GB, so it is not part of CI
	sh .ci/try-bare $(PYTHON)

check-deploy: .venv/installed-for-tests  ## check images, compose, chart, dashboard and rules
	PATH="$(CURDIR)/$(BIN):$$PATH" sh deploy/check.sh

clean:  ## remove everything that these targets made
	rm -rf .venv build dist demo-output *.egg-info .mypy_cache .ruff_cache

# Tests of one idea each that start no process and train nothing.
QUICK := tests/engine/codec tests/engine/model tests/engine/system tests/engine/test_*.py tests/test_docs.py \
  tests/test_import_direction.py

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Solstice needs Python 3.11, 3.12 or 3.13; name one: make demo PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "This Python has no venv module; install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -qq --editable '.$(EXTRAS)'
	@touch $@

.venv/installed-for-tests: .venv/installed
	$(BIN)/python -m pip install -qq --editable '.[train]' --group test
	@touch $@

.venv/installed-for-docs: .venv/installed
	$(BIN)/python -m pip install -qq --group docs
	@touch $@
