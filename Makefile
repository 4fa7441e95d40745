# Everything sets itself up: a fresh clone needs Python 3.11+ (with venv), a C++ compiler, and for `make test` Node 20+.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?=

NATIVE := CMakeLists.txt pyproject.toml constraints.txt $(shell find csrc -type f -not -path "csrc/cuda/*" 2>/dev/null)

.PHONY: demo test test-python test-contracts lint format vectors contracts gas clean setup setup-dev setup-node

demo: $(VENV)/.installed
	@$(BIN)/verde demo $(DEMO)

test: setup-dev setup-node
	scripts/test.sh

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev
setup-node: node_modules/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "Python 3.11 or later is needed, this is %d.%d: make PYTHON=python3.12" % v[:2])'
	$(PYTHON) -m venv $(VENV)

# The extension is rebuilt when a C++ source changes; Python files are used from the tree.
$(VENV)/.installed: $(BIN)/python $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(BIN)/python $(NATIVE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(VENV)/.installed $@

node_modules/.installed: package.json
	npm install --no-audit --no-fund --loglevel=error
	touch $@

test-python: setup-dev
	$(BIN)/python -m pytest -n auto

test-contracts: setup-node
	scripts/forge test

lint: setup-dev setup-node
	scripts/lint.sh

format: setup-dev setup-node
	$(BIN)/ruff format . && $(BIN)/ruff check --fix . && scripts/forge fmt

contracts: setup-dev setup-node
	$(BIN)/python scripts/build_contracts.py
	$(BIN)/python scripts/build_interface_page.py

gas: setup-dev
	$(BIN)/python scripts/gas.py

vectors: setup-dev setup-node
	$(BIN)/python scripts/build_vectors.py
	$(BIN)/python scripts/build_program_vectors.py
	$(BIN)/python scripts/build_repvm_vectors.py
	$(BIN)/python scripts/build_trial_vectors.py
	$(BIN)/python tests/repops/golden.py
	$(BIN)/python scripts/build_function_listings.py
	$(BIN)/python scripts/build_images.py
	$(BIN)/python scripts/check_float32.py --write

clean:
	rm -rf $(VENV) node_modules build out cache
