PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test benchmark clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.ready  ## train BP, checkpointing, DGL and AugLocal on bundled images, side by side
	$(BIN)/locallearn compare --data digits --model resnet20 --epochs 12 --threads 1

test: .venv/.ready  ## everything that is checked: lint, types, tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/pytest -n auto --maxprocesses 4

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
