# make train: set up, train a policy, compare it with the rules.    make test: set up, lint, type-check, test.
# make venv: set up only, compiled inner loop included. With PREFILL_PLACEMENT_PLAIN=1 in front, everything runs in plain Python.
# make map: set up, tune and compare rules under four TBT SLOs and two step budgets, map the winners.
.PHONY: venv train map bench bench-baseline test lint type unit unit-fast explore format clean

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
# Pinned: left open, pip takes the newest build with several gigabytes of CUDA; this one is one file where it is at hand.
TORCH := torch==2.13.0
# A smaller run of the recipe of the policy that ships (docs/model_card.md). TRAIN="..." replaces its options.
TRAIN ?= --workload LPLD LPHD HPLD HPHD burst --tbt-slos 0.025 0.03 0.05 0.1 --warm-start rules --warm-episodes 70 \
  --timesteps 120000 --portfolio-episodes 100 --knees shipped --loads 0.85 --seeds 2
JOBS ?= 2
PYTEST := WANDB_MODE=disabled OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)

# Compiles what has changed since the last time. Without a C compiler a line says so, and everything runs in plain Python.
venv: $(VENV)/ready
	@$(BIN)/python -m hardware_profiles.compile

train: venv
	$(BIN)/python -m experiments.train $(TRAIN)

# Where disaggregation pays (docs/map.md). Finished runs are kept, so the same command resumes; JOBS runs go at a time.
MAP_RULES := kairos colocated shortest-ttft:choices=deflection shortest-ttft:choices=pairs dynaserve arrow taichi
MAP_WORKLOADS := LPLD LPHD HPLD HPHD burst
MAP_TBT_SLOS_S := 0.025 0.03 0.05 0.1
MAP_OUT ?= runs/map

map: venv
	set -e; for tbt in $(MAP_TBT_SLOS_S); do for budget in fixed slo; do \
	  given="--workload $(MAP_WORKLOADS) --tbt-slo $$tbt --step-budget $$budget --jobs $(JOBS)"; \
	  tuned=$(MAP_OUT)/tune-$$budget-$$tbt; \
	  $(BIN)/python -m experiments.tune --policies $(MAP_RULES) $$given --out $$tuned; \
	  $(BIN)/python -m experiments.compare --policies static lmetric $(MAP_RULES) $$given --tuned $$tuned \
	    --loads 0.7 0.95 1.05 --seeds 10 --out $(MAP_OUT)/table-$$budget-$$tbt; \
	done; done
	$(BIN)/python -m experiments.map $(foreach budget,fixed slo,$(MAP_TBT_SLOS_S:%=$(MAP_OUT)/table-$(budget)-%)) \
	  --out $(MAP_OUT)

# Speed as ratios to bare SimPy, compared with the table in docs/bench.md; bench-baseline writes that table.
bench: venv
	$(BIN)/python -m experiments.bench --baseline docs/bench.md

bench-baseline: venv
	$(BIN)/python -m experiments.bench --baseline docs/bench.md --update

# mypy and the compiler run side by side.
test: lint $(VENV)/live
	@$(MAKE) --no-print-directory -j2 type venv
	@$(MAKE) --no-print-directory unit

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/ready
	$(BIN)/mypy

unit: venv $(VENV)/live
	$(PYTEST) --durations=10

# The tests that are not marked slow; less than a minute on two cores.
unit-fast: venv
	$(PYTEST) -m 'not slow'

# The hypothesis tests on random examples, different each time; .hypothesis keeps the examples that failed.
explore: venv
	HYPOTHESIS_PROFILE=explore $(PYTEST) -m hypothesis

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

# NVIDIA Dynamo, for the tests of experiments.live and experiments.serve; without it they are skipped.
$(VENV)/live: $(VENV)/ready
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[live]' \
	  || echo "NVIDIA Dynamo cannot be installed here: the tests that need it are skipped"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
