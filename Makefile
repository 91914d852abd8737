# The two commands that matter: `make demo` and `make test`. `make help` lists the rest.
# Everything goes into .venv; a stamp in it makes the second run start at once.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# of each training in `make benchmarks`: too few to judge by, enough to see that all of it runs
MINUTES ?= 1

# real data beside the clone, when there is some
ifndef LINCEI_DATA
ifneq ($(wildcard ../shared/data),)
export LINCEI_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: help demo test lint format wheel benchmarks system-packages clean
.DEFAULT_GOAL := help

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Set everything up, run the main job on sample data, write demo/index.html
	@.ci/system-packages demo
	@$(MAKE) --no-print-directory $(VENV)/.installed-light
	$(BIN)/lincei demo --out demo

test: ## Set everything up and run all checks and tests
	@.ci/system-packages test
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest tests/gui

lint: $(VENV)/.installed-test ## Style, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-test ## Put the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed-test ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m pytest tests/lincei/test_wheel.py

benchmarks: $(VENV)/.installed-test ## Measure speed and memory on this machine (see benchmarks/README.md)
	$(BIN)/python benchmarks/command_start.py
	$(BIN)/python benchmarks/label_speed.py
	$(BIN)/python benchmarks/focus_speed.py
	$(BIN)/python benchmarks/compare_distributions.py --minutes $(MINUTES) --out build/benchmarks

system-packages: ## Install the Debian packages that the tests use, or name what is missing
	@.ci/system-packages test

clean: ## Remove what the other targets made
	rm -rf $(VENV) dist build demo .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install the package python3 of a newer" \
		"Debian or Ubuntu, or name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "Python's module venv is missing. Install it with: sudo apt-get install" \
		"$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])') (or python3-venv)"; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-light: pyproject.toml | $(BIN)/python
	@echo "Installing lincei (the light install, about 1 GB; a minute or two) ..."
	$(PIP) install -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	@echo "Installing lincei with everything the tests use (several GB; ten minutes) ..."
	$(PIP) install -e '.[test]'
	@touch $@ $(VENV)/.installed-light
