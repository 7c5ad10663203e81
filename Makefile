# make train: set up, train a policy, evaluate it beside the heuristics.    make test: set up, lint, type-check, test.
# make map: set up, tune and compare rules under four TBT SLOs and two step budgets, map the winners.
.PHONY: train map test lint type unit unit-fast explore format compiled plain clean

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

# Where disaggregation pays (docs/map.md). Finished runs are kept, so the same command resumes; JOBS runs go at a time.
MAP_RULES := kairos colocated shortest-ttft dynaserve arrow taichi
MAP_WORKLOADS := LPLD LPHD HPLD HPHD burst
MAP_TBT_SLOS_S := 0.025 0.03 0.05 0.1
MAP_OUT ?= runs/map

map: $(VENV)/ready
	set -e; for tbt in $(MAP_TBT_SLOS_S); do for budget in fixed slo; do \
	  given="--workload $(MAP_WORKLOADS) --tbt-slo $$tbt --step-budget $$budget --jobs $(JOBS)"; \
	  tuned=$(MAP_OUT)/tune-$$budget-$$tbt; \
	  $(BIN)/python -m experiments.tune --policies $(MAP_RULES) $$given --out $$tuned; \
	  $(BIN)/python -m experiments.compare --policies static $(MAP_RULES) $$given --tuned $$tuned \
	    --loads 0.7 0.95 1.05 --seeds 10 --out $(MAP_OUT)/table-$$budget-$$tbt; \
	done; done
	$(BIN)/python -m experiments.map $(foreach budget,fixed slo,$(MAP_TBT_SLOS_S:%=$(MAP_OUT)/table-$(budget)-%)) \
	  --out $(MAP_OUT)

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
