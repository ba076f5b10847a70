# The verbs of this project. `make serve` and `make test` do all the set-up themselves, inside this folder.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8080
DATA ?= .data
BIN := .venv/bin
# For a third of their time tests wait for something, so more of them at once than there are cores to run them on (2 in CI).
PROCESSES ?= 3
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
# The locks are complete, so pip only installs; `--no-deps` because it would refuse the overrides in pyproject.toml.
INSTALL := install --quiet --disable-pip-version-check --no-deps
COMPILE := .venv/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header
export TOKENWORKS_CACHE_DIR ?= $(CURDIR)/.cache

.DEFAULT_GOAL := help
.PHONY: help setup serve test check fmt docs bench run lock clean services

help: ## list these verbs
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(BIN)/pip:
	$(PYTHON) -m venv .venv

.venv/runtime.stamp: requirements.lock pyproject.toml | $(BIN)/pip
	$(BIN)/pip $(INSTALL) --require-hashes -r requirements.lock
	$(BIN)/pip $(INSTALL) --no-build-isolation --editable .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/runtime.stamp
	$(BIN)/pip $(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

.venv-legacy/stamp: requirements-legacy.lock | $(BIN)/pip
	$(PYTHON) -m venv --without-pip .venv-legacy
	$(BIN)/pip --python .venv-legacy/bin/python $(INSTALL) --require-hashes -r requirements-legacy.lock
	@touch $@

setup: .venv/dev.stamp .venv-legacy/stamp ## create .venv (and .venv-legacy, for old clients) with everything pinned

serve: .venv/runtime.stamp ## run a provider with a real model: make serve PORT=8080
	$(BIN)/tokenworks serve --host $(HOST) --port $(PORT) --data-dir $(DATA)

services: ## install the servers that tests start themselves, where they are missing (Debian's packages)
	@command -v valkey-server >/dev/null || command -v redis-server >/dev/null \
		|| { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq redis-server >/dev/null; }
	@command -v postgres >/dev/null || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 \
		|| { $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq postgresql >/dev/null; }

test: setup services ## run all tests
	$(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/dev.stamp ## linters, types, import direction: exactly what CI runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fmt: setup ## format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup ## make the generated pages again
	$(BIN)/python -m tokenworks.bench.parameters

bench: setup ## print the benchmark tables
	$(BIN)/python -m benchmarks $(ARGS)

run: .venv/runtime.stamp ## any command: make run ARGS="models list"
	$(BIN)/tokenworks $(ARGS)

lock: ## pin every dependency again, with hashes
	$(PYTHON) -m venv .venv/lock
	.venv/lock/bin/pip install --quiet uv==0.13.9
	$(COMPILE) pyproject.toml requirements-build.in -o requirements.lock
	$(COMPILE) --extra dev --extra postgres --extra optimize pyproject.toml requirements-build.in -c requirements.lock -o requirements-dev.lock
	$(COMPILE) requirements-legacy.in -o requirements-legacy.lock

clean: ## remove everything that make created
	rm -rf .venv .venv-legacy .data .cache build dist .pytest_cache .mypy_cache .ruff_cache
