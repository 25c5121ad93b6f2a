# `make demo` and `make test` do all of their own set-up, in .venv; nothing outside this folder is touched.
# `-qq`: with one q, pip shows a page of setuptools' thoughts about editable installations.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint format check-deploy clean

demo: .venv/installed  ## translate the sample photos and leave a page to look at
	$(BIN)/solstice convert samples demo-output/winter --model summer2winter --report
	$(BIN)/solstice convert samples demo-output/summer --model winter2summer --report
	@echo "Open demo-output/winter/report.html and demo-output/summer/report.html in a browser."

test: .venv/installed-for-tests  ## run the tests; no GPU, no network needed once installed
	$(BIN)/python -m pytest

lint: .venv/installed-for-tests  ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-for-tests
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check-deploy: .venv/installed-for-tests  ## check compose file, Dockerfile, Prometheus rules
	PATH="$(CURDIR)/$(BIN):$$PATH" sh deploy/check.sh

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "Solstice needs Python 3.11, 3.12 or 3.13; name one: make demo PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "This Python has no venv module; install it (Debian and Ubuntu: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install -qq --editable .
	@touch $@

.venv/installed-for-tests: .venv/installed
	$(BIN)/python -m pip install -qq --editable '.[train]' --group test
	@touch $@

clean:
	rm -rf .venv build demo-output *.egg-info .mypy_cache .ruff_cache
