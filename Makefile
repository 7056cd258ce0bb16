# Everything a developer runs; `make` alone lists it. Only Python 3.11 and make need be there beforehand.

PYTHON ?= python3.11
VENV ?= .venv
PYTEST_ARGS ?=
LOCK_ARGS ?=

# Another package index for the CPU-only PyTorch, remembered in the virtual environment: `make setup TORCH_INDEX=<url>`
# chooses it once for all later targets, and `make setup TORCH_INDEX=` goes back to the default build.
ifeq ($(origin TORCH_INDEX),undefined)
TORCH_INDEX := $(shell cat $(VENV)/torch-index 2>/dev/null)
endif

BIN := $(VENV)/bin
UV := $(BIN)/uv
# In two processes: what waits for Ray to start leaves a core to the other. The tests of a file share what it sets up.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile
UV_INSTALL := $(UV) pip install --python $(BIN)/python --no-deps

# constraints.txt is a list of blocks: `name==version \` at the margin, then indented hashes and comments.
TORCH := /^(torch|torchvision)==/
TORCH_AND_CUDA := /^(torch|torchvision|triton|nvidia-[^=]*|cuda-[^=]*)==/

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup demo demo-azure check format test test-slow test-all lock clean distclean FORCE

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.glint ## make .venv with everything in it, the `glint` command too

demo: setup ## generate circuit boards, then train, evaluate, batch and serve on them
	$(BIN)/glint demo

demo-azure: setup ## the same on local emulators of Azure Blob Storage and Cosmos DB
	$(BIN)/glint emulators run -- $(BIN)/glint demo --upload az://demo/boards

check: setup ## ruff, import layers and mypy --strict, in seconds
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy platform/glint $(if $(wildcard deployments/*.py deployments/*/*.py),deployments)

format: setup ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: check ## check, then the fast tests (10 minutes at most)
	$(PYTEST) $(PYTEST_ARGS)

test-slow: setup ## only the tests marked slow: Ray starts of their own, faults, browsers, minutes
	$(PYTEST) --no-loadscope-reorder -m slow $(PYTEST_ARGS)

test-all: test test-slow ## every test (40 minutes at most)

lock: $(VENV)/.uv ## renew constraints.txt after a change of pyproject.toml (LOCK_ARGS=--upgrade for newer releases)
	$(UV) pip compile pyproject.toml --extra dev --quiet --generate-hashes --no-emit-index-url --no-header \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_28 $(LOCK_ARGS) --output-file constraints.txt

clean: ## remove caches and build outputs
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find platform tests -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## remove .venv too
	rm -rf $(VENV)

# Set-up, in four steps, each with a file in the virtual environment that says when it was last done.

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { echo \
	    "PYTHON=$(PYTHON) is not a Python 3.11, which glint needs: name one with make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
	    "PYTHON=$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3.11-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.uv: constraints.txt $(VENV)/.python
	@awk '/^[^ #]/ {keep = /^uv==/} keep' constraints.txt > $(VENV)/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(VENV)/uv.txt
	@touch $@

# A change of index takes PyTorch out first: `torch==2` is content with `2+cpu`, and the other way round.
$(VENV)/torch-index: FORCE | $(VENV)/.uv
	@printf '%s\n' '$(TORCH_INDEX)' | cmp -s - $@ || { \
	    if [ -e $@ ]; then \
	        awk -F '[= ]' '$(TORCH_AND_CUDA) {print $$1}' constraints.txt | \
	            $(UV) pip uninstall --quiet --python $(BIN)/python -r -; \
	    fi; \
	    printf '%s\n' '$(TORCH_INDEX)' > $@; }

$(VENV)/without-torch.txt: constraints.txt $(VENV)/.python
	@awk '/^[^ #]/ {keep = !$(TORCH_AND_CUDA)} keep' constraints.txt > $@

# Compiled at once, for a worker that imports torch, Ray and MLflow from sources alone starts five seconds later.
$(VENV)/.packages: constraints.txt $(VENV)/.uv $(VENV)/torch-index $(VENV)/without-torch.txt
ifeq ($(TORCH_INDEX),)
	$(UV_INSTALL) --compile-bytecode --require-hashes -r constraints.txt
else
	$(UV_INSTALL) --require-hashes -r $(VENV)/without-torch.txt
	$(UV_INSTALL) --compile-bytecode --default-index '$(TORCH_INDEX)' $$(awk '$(TORCH) {print $$1}' constraints.txt)
endif
	@touch $@

$(VENV)/.glint: pyproject.toml $(VENV)/.packages
	$(UV_INSTALL) --no-build-isolation --offline --editable .
	@touch $@
