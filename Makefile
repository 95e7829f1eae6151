# `make help` lists the targets. Everything is installed into .venv by the first one that needs it.

PYTHON ?= python3
PORT ?= 8000
HOST ?= 127.0.0.1
MODELS ?= models

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
UV_VERSION := 0.13.8
INSTALL := $(UV) pip install -q -p $(BIN)/python --no-deps
COMPILE := $(UV) pip compile -q pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --override packaging/overrides.txt
SERVE_EXTRAS := --extra gateway --extra heic --extra tensorflow --extra faces
DEV_EXTRAS := $(SERVE_EXTRAS) --extra otel --extra postgres --extra redis --extra parquet --extra s3 --extra dev
PROTOS := serving/backend/protos
PYTEST := $(BIN)/python -m pytest
# one more than there are CPUs: many tests wait for processes that they start
PARALLEL = -n $(shell $(BIN)/python -c 'import os; print(min(4, 1 + len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4))') \
  --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/uv.done: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info < (3, 13)))' \
	  || { echo "Python 3.11 or 3.12 is needed, and $(PYTHON) is $$($(PYTHON) --version): PYTHON=python3.12 make ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 cannot make an environment; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(VENV)/serve.done: $(VENV)/uv.done locks/serve.txt
	@echo "Installing what serving and exporting need into $(VENV) ..."
	@$(INSTALL) --require-hashes -r locks/serve.txt
	@$(INSTALL) ./packaging/dlib-shim -e .
	@# compiled once, so that no start has to, also where PYTHONDONTWRITEBYTECODE is set
	@PYTHONDONTWRITEBYTECODE= TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -c 'import serving.gateway.app, serving.gateway.http.v1_backend, serving.model_server.server, serving.runtimes.litert, serving.runtimes.tensorflow_session' 2>/dev/null
	@touch $@

$(VENV)/dev.done: $(VENV)/serve.done locks/dev.txt
	@echo "Installing what development needs into $(VENV) ..."
	@$(INSTALL) --require-hashes -r locks/dev.txt
	@touch $@

.PHONY: install
install: $(VENV)/serve.done ## Create the environment that serves and exports

.PHONY: serve
serve: install ## Start everything; PORT=9000, HOST=, MODELS=folder
	@$(BIN)/sightline serve --host $(HOST) --port $(PORT) --models $(MODELS) --log-format text --export-if-empty

.PHONY: demo
demo: install ## Like serve, and train a fashion model in the background
	@$(BIN)/sightline serve --host $(HOST) --port $(PORT) --models $(MODELS) --log-format text --demo

.PHONY: up
up: ## Start everything in containers; PORT=9000, HOST=, MODELS=folder, MONITORING=1
	@PORT=$(PORT) PUBLISH=$(HOST) MODELS=$(MODELS) docker/up.sh cpu

.PHONY: up-gpu
up-gpu: ## Like up, with TensorFlow Serving on an NVIDIA GPU
	@PORT=$(PORT) PUBLISH=$(HOST) MODELS=$(MODELS) docker/up.sh gpu

.PHONY: up-embedded
up-embedded: ## Like up, with the embedded model server
	@PORT=$(PORT) PUBLISH=$(HOST) MODELS=$(MODELS) docker/up.sh embedded

.PHONY: down
down: ## Stop the containers; keep models and known faces
	@MODELS=$(abspath $(MODELS)) docker compose --file docker/compose.yaml --profile '*' down

.PHONY: test
test: $(VENV)/dev.done ## Run all tests except the slow ones; ARGS="tests/gateway --lf", COVERAGE=1
	@$(PYTEST) $(PARALLEL) $(if $(COVERAGE),--cov) $(ARGS)

.PHONY: test-fast
test-fast: $(VENV)/dev.done ## Run the unit tests: no TensorFlow, no child process
	@$(PYTEST) $(PARALLEL) -m unit $(ARGS)

.PHONY: test-slow
test-slow: $(VENV)/dev.done ## Run the tests that take minutes
	@$(PYTEST) -m slow $(ARGS)

.PHONY: lint
lint: $(VENV)/dev.done ## Check style, types, generated files and locks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(MAKE) -s check-protos

.PHONY: format
format: $(VENV)/dev.done ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: protos
protos: $(VENV)/dev.done ## Generate the protobuf code
	@$(BIN)/python -m grpc_tools.protoc -I $(PROTOS) --python_out=$(PROTOS) --pyi_out=$(PROTOS) wire.proto

.PHONY: check-protos
check-protos: $(VENV)/dev.done
	@rm -rf $(VENV)/protos && mkdir -p $(VENV)/protos
	@$(BIN)/python -m grpc_tools.protoc -I $(PROTOS) --python_out=$(VENV)/protos --pyi_out=$(VENV)/protos wire.proto
	@for file in wire_pb2.py wire_pb2.pyi; do \
	  cmp $(VENV)/protos/$$file $(PROTOS)/$$file || { echo "$$file is out of date: make protos" >&2; exit 1; }; done

.PHONY: lock
lock: $(VENV)/uv.done ## Update the lock files (UPGRADE=--upgrade takes newer versions)
	@mkdir -p locks
	@$(COMPILE) $(UPGRADE) $(DEV_EXTRAS) -o locks/dev.txt
	@$(COMPILE) $(UPGRADE) $(SERVE_EXTRAS) -c locks/dev.txt -o locks/serve.txt
	@$(COMPILE) $(UPGRADE) --extra gateway -c locks/dev.txt -o locks/gateway.txt
	@$(COMPILE) $(UPGRADE) --extra gateway --extra redis --extra otel --extra heic --extra faces --extra postgres -c locks/dev.txt -o locks/gateway-faces.txt
	@$(COMPILE) $(UPGRADE) --extra model-server -c locks/dev.txt -o locks/model-server.txt

.PHONY: bench
bench: $(VENV)/dev.done ## Run the benchmarks on an idle machine; ARGS="--peers --rounds 5"
	@$(BIN)/python -m benchmarks.bench $(ARGS)

.PHONY: bench-compare
bench-compare: $(VENV)/dev.done ## Compare two runs; BEFORE=a.json AFTER=b.json
	@$(BIN)/python -m benchmarks.compare $(BEFORE) $(AFTER)

.PHONY: bench-peers
bench-peers: $(VENV)/uv.done ## Install the peers (2 GB each) and run the benchmarks with them
	@for peer in inprocess litserve bentoml; do \
	  echo "Installing $$peer into .venv-peers/$$peer ..."; \
	  $(PYTHON) -m venv .venv-peers/$$peer && \
	  $(UV) pip install -q -p .venv-peers/$$peer/bin/python -r benchmarks/peers/$$peer.txt || exit 1; done
	@$(MAKE) -s bench ARGS="--peers $(ARGS)"

.PHONY: clean
clean: ## Remove the environment and caches; keep models
	@rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .test-cache .coverage
