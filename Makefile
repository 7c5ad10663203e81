# make train: set up, train a policy, evaluate it beside the heuristics.    make test: set up, lint, type-check, test.
.PHONY: train test lint type unit format clean

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Pinned: left open, pip takes the newest build with several gigabytes of CUDA; this one is one file where it is at hand.
TORCH := torch==2.13.0
TRAIN ?=
JOBS ?= 2

train: $(VENV)/ready
	$(BIN)/python -m experiments.train $(TRAIN)

test: lint type unit

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/ready
	$(BIN)/mypy

unit: $(VENV)/ready
	WANDB_MODE=disabled OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --durations=10

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
