# `make` lists what there is to do. Everything runs in .venv, which is made on the first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types bench serve clean

help:  ## List the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/installed  ## Watch a morning of documents go from agency to agency
	$(BIN)/lienthong demo

test: $(VENV)/installed-test  ## Run the whole test suite
	$(BIN)/python -m pytest

check: lint types test  ## Everything that CI checks

lint: $(VENV)/installed-test  ## Style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test  ## Types, strictly
	$(BIN)/mypy

bench: $(VENV)/installed-bench  ## Documents per second and CPU per document, beside the bare floors
	$(BIN)/python -m benchmarks.bench

serve: $(VENV)/installed  ## Run a hub in ./data
	$(BIN)/lienthong serve

clean:  ## Remove the environment (never data)
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@
