# The commands of README.md. Each sets up what it needs, from the locks in requirements/, in .venv.
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help run test test-all lint types coverage lock clean

help:            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 16

.venv/.run: requirements/run.txt setup.cfg
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.run
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

run: .venv/.run  ## set up, then run the whole system on embedded servers
	$(BIN)/marketflow run

test: .venv/.dev lint types ## set up, then lint, check types and run the default tests
	TEST_AGAIN=$(BIN)/pytest $(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

test-all: .venv/.dev ## everything, on each Python that is here (tox.ini)
	$(BIN)/tox run-parallel --parallel 2 --parallel-no-spinner $(ARGS)

lint: .venv/.dev ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev ## check types
	$(BIN)/mypy

coverage: export COVERAGE_FILE = $(CURDIR)/.coverage
coverage: .venv/.dev ## measure what the tests cover, in every process
	$(BIN)/coverage erase
	-$(BIN)/coverage run -m pytest $(ARGS) # measuring slows down: a test of time may fail
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: .venv/.dev ## set up, then measure everything; one table, see docs/performance.md (20 minutes)
	$(BIN)/python -m tests.load

lock: .venv/.dev ## pin again what `make run`, the image and `make test` install
	$(BIN)/uv pip compile $(UV_ARGS) --extra embedded setup.cfg requirements/build.in -o requirements/run.txt
	$(BIN)/uv pip compile $(UV_ARGS) --constraint requirements/run.txt setup.cfg -o requirements/image.txt
	$(BIN)/uv pip compile $(UV_ARGS) --constraint requirements/run.txt requirements/build.in -o requirements/build.txt
	$(BIN)/uv pip compile $(UV_ARGS) --extra embedded --extra test --extra lint setup.cfg requirements/build.in -o requirements/dev.txt
	$(BIN)/uv pip compile $(UV_ARGS) --no-generate-hashes --resolution lowest-direct setup.cfg -o requirements/lowest.txt
UV_ARGS := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header

clean:           ## remove the virtual environment and what tools left
	rm -rf .venv .tox .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
