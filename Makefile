# make train: set up, train a policy, evaluate it beside the heuristics.    make test: set up, lint, type-check, test.
.PHONY: train test lint type unit unit-fast explore format compiled plain clean

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Pinned: left open, pip takes the newest build with several gigabytes of CUDA; this one is one file where it is at hand.
TORCH := torch==2.13.0
TRAIN ?=
JOBS ?= 2
PYTEST := WANDB_MODE=disabled OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

train: $(VENV)/ready
	$(BIN)/python -m experiments.train $(TRAIN)

test: lint type unit

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/ready
	$(BIN)/mypy

unit: $(VENV)/ready
	$(PYTEST) --durations=10

# The tests that are not marked slow; less than a minute on two cores.
unit-fast: $(VENV)/ready
	$(PYTEST) -m 'not slow'

# The hypothesis tests on random examples, different each time; .hypothesis keeps the examples that failed.
explore: $(VENV)/ready
	HYPOTHESIS_PROFILE=explore $(PYTEST) -m hypothesis

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# The inner loop through mypyc: same source, same results, less than half the time. Needs a C compiler and some minutes.
COMPILED := $(addprefix envs/cluster/,decode_batch.py engine.py first_token_wait.py gaps.py in_progress.py kv_pool.py kv_transfer.py \
	lifecycle.py network.py placement.py queues.py request.py router_counters.py scheduler.py slo_count.py span.py \
	step_budget.py telemetry.py) \
	hardware_profiles/step_law.py

compiled: $(VENV)/ready plain
	$(BIN)/python -m mypyc $(COMPILED)
	mv *__mypyc.*.so "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"

plain:
	rm -f envs/cluster/*.so hardware_profiles/*.so

clean: plain
	rm -rf $(VENV) build *.egg-info
