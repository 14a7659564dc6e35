PYTHON ?= python3
BIN := .venv/bin

PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist worksteal

export PYTHONDONTWRITEBYTECODE =  # else pytest would rewrite the assertions of all tests anew in each process

.PHONY: help demo test test-all test-slow browser-test chromium checked lint types fast benchmark clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.ready  ## train BP, checkpointing, DGL and AugLocal on bundled images, side by side
	$(BIN)/locallearn compare --data digits --model resnet20 --epochs 12 --threads 1

test: lint  ## lint, types, and the tests of every mechanism, in under five minutes
	$(MAKE) --jobs 2 types fast

fast: .venv/.ready
	$(PYTEST) -m "not slow and not browser"

test-all: checked chromium  ## lint, types, and all tests
	$(PYTEST)

test-slow: .venv/.ready  ## the tests that `make test` leaves out
	$(PYTEST) -m slow

browser-test: .venv/.ready chromium  ## the report page in a browser
	$(BIN)/pytest tests/browser

chromium:  ## install Debian's chromium, if there is none
	command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }

checked: lint types

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ready
	$(BIN)/pyright

benchmark: .venv/.ready  ## time and peak memory of each rule against BP and checkpointing
	$(BIN)/python benchmarks/step.py

.venv/.ready: pyproject.toml requirements.txt requirements-no-deps.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "locallearn needs Python 3.11, 3.12 or 3.13: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-no-deps.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

clean:  ## remove .venv, run folders and built packages
	rm -rf .venv runs dist
