# The two commands a newcomer needs; each makes the environment that it runs in:
#
#   make demo     the light install in .venv, and one answer
#   make test     the full install in .venv-test, and the whole test suite
#
# `make quick` runs the tests that need no torch and no process: a minute. `make bench` holds the bars on time, on a
# machine that does nothing else. `make check` adds the linter, the types and the import contracts. `make interpreters`
# records steps under every other Python of this machine and, under Node, Python 3.14. `make page` writes the
# page. PYTHON=python3.12 picks another interpreter; a changed pyproject.toml or constraints.txt brings the environments
# up to date.

PYTHON ?= python3
DEMO_FLAGS ?= --model llama-8b --gpu 24GB --examples 3000
PYTEST_FLAGS ?=
TEST_WORKERS ?= 2
PYODIDE_VERSION ?= 314.0.7
AXE_VERSION ?= 4.14.1
PAGE ?= build/page

DEMO_BIN := .venv/bin
TEST_BIN := .venv-test/bin
PIP_FLAGS := --quiet --disable-pip-version-check
# What the tests of the page need beside Chromium; without npm, Chromium or a registry they are skipped.
BROWSER_FILES := $(if $(and $(shell command -v npm),$(shell command -v chromium)),.pyodide/installed)
NPM_FLAGS := --no-audit --no-fund --silent --fetch-retries 1 --fetch-timeout 60000
SOURCES := $(shell find advisor calibrate profiles -type f ! -name '*.pyc')

# One thread each: on a loaded machine, torch with more is up to a hundred times slower. And no network.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE := 1
# Or each of the many processes under test compiles the packages anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test quick bench check lint types contracts interpreters page environment python clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(DEMO_BIN)/advise $(DEMO_FLAGS)

test: .venv-test/installed
	@$(if $(BROWSER_FILES),$(MAKE) --no-print-directory $(BROWSER_FILES) || \
		echo "npm could not install Pyodide: the tests that need it are skipped" >&2)
	$(TEST_BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

quick: .venv-test/installed
	$(TEST_BIN)/python -m pytest --quick $(PYTEST_FLAGS)

bench: .venv-test/installed
	$(TEST_BIN)/python -m benchmarks.startup
	$(TEST_BIN)/python -m benchmarks.estimates
	$(TEST_BIN)/python -m benchmarks.lookups
	$(TEST_BIN)/python -m benchmarks.data_set --rows 100000

check: lint types contracts test

lint: .venv-test/installed
	$(TEST_BIN)/ruff format --check .
	$(TEST_BIN)/ruff check .

types: .venv-test/installed
	$(TEST_BIN)/mypy

contracts: .venv-test/installed
	$(TEST_BIN)/lint-imports

# Python 3.14 as WebAssembly, from the npm registry.
interpreters: .venv-test/installed .pyodide/installed
	$(TEST_BIN)/python -m pytest tests/tape/test_interpreters.py tests/site/test_page_answers.py

.pyodide/installed: Makefile
	npm install --prefix .pyodide $(NPM_FLAGS) pyodide@$(PYODIDE_VERSION) axe-core@$(AXE_VERSION)
	touch $@

# The page that answers in a browser, as static files.
page: .venv/installed .pyodide/installed
	$(DEMO_BIN)/advise page --to $(PAGE) --runtime .pyodide

environment: .venv-test/installed

# A plain install, as a user has it: the package data is proven to travel along.
.venv/installed: pyproject.toml constraints.txt $(SOURCES) | python
	$(PYTHON) -m venv .venv
	$(DEMO_BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt .
	touch $@

# torch first, alone and by its exact pin: only so does pip take a build that the machine already holds.
.venv-test/installed: pyproject.toml constraints.txt | python
	$(PYTHON) -m venv .venv-test
	$(TEST_BIN)/python -m pip install $(PIP_FLAGS) "$$(grep '^torch==' constraints.txt)"
	$(TEST_BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[browser,calibrate,hub,test]'
	touch $@

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }

clean:
	rm -rf .venv .venv-test .pyodide .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
