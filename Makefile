# `make` lists what there is to do. Everything runs in .venv, which is made on the first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-bench check lint types bench bench-long bench-peers load serve clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/installed  ## Watch a morning of documents go from agency to agency
	$(BIN)/lienthong demo

test: $(VENV)/installed-test  ## Run the test suite
	$(BIN)/python -m pytest -n auto --dist worksteal

test-bench: $(VENV)/installed-test $(VENV)/installed-bench  ## Try the benchmarks
	$(BIN)/python -m pytest -m bench

check: lint types test  ## Everything that CI checks

lint: $(VENV)/installed-test  ## Style and likely mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-test  ## Types, strictly
	$(BIN)/mypy

bench: $(VENV)/installed-bench  ## Documents per second, CPU per document and latencies, beside the bare floors
	$(BIN)/python -m benchmarks.bench
	$(BIN)/python -m benchmarks.charts

bench-long: $(VENV)/installed-bench  ## 10,000 idle endpoints, a million waiting documents: about 15 minutes
	$(BIN)/python -m benchmarks.bench --long
	$(BIN)/python -m benchmarks.sweeps
	$(BIN)/python -m benchmarks.charts

bench-peers: $(VENV)/installed-bench-peers  ## The hub and other people's queues in turn, on this machine
	$(BIN)/python -m benchmarks.peers

load: $(VENV)/installed-bench  ## Locust against a hub of its own, with a report
	$(BIN)/python -m benchmarks.locust --html benchmarks/results/load.html

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

$(VENV)/installed-bench-peers: $(VENV)/installed-bench
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench-peers]'
	@touch $@
