# Every target makes its own .venv when it is missing and is quick when it is there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test test-all lint check crash crawl-debian format bench bench-recovery bench-scaling clean

# What runs: the package, in place, and nothing else.
$(VENV)/.runs: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --editable .
	touch $@

# What checks: the tools of the dev group as well.
$(VENV)/.checks: $(VENV)/.runs
	$(PIP) install --upgrade "pip>=25.1"
	$(PIP) install --group dev
	touch $@

demo: $(VENV)/.runs
	$(BIN)/python examples/demo.py

test: $(VENV)/.checks
	$(BIN)/python -m pytest $(ARGS)

test-all:
	bash .ci/test-all

lint: $(VENV)/.checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --warnings
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

# The long form of the kill, power-cut and interruption tests, with examples of their own each time.
crash: $(VENV)/.checks
	MILEPOST_TEST_KILLS=200 MILEPOST_TEST_WALKS=400 MILEPOST_TEST_CUTS=300 MILEPOST_TEST_FLIPS=300 \
		MILEPOST_TEST_FILE_CUTS=150 MILEPOST_TEST_PLACES=2000 MILEPOST_TEST_ROUNDS=200 MILEPOST_TEST_ROUND_BATCHES=50 \
		MILEPOST_TEST_RACES=100 MILEPOST_TEST_STARTS=600 MILEPOST_TEST_COPIES=25 \
		MILEPOST_TEST_SHAPE_KILLS=30 MILEPOST_TEST_MOMENTS=300 MILEPOST_TEST_MIXES=500 \
		$(BIN)/python -m pytest tests/faults tests/format/test_damage.py \
		--hypothesis-profile=campaign $(ARGS)

# Two real sites crawled and killed; says what to install where their packages are missing.
crawl-debian: $(VENV)/.checks
	$(BIN)/python tests/faults/crawl_debian.py $(ARGS)

format: $(VENV)/.checks
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.runs
	$(BIN)/python tests/bench/bench.py

# What a watcher costs, and how long work lies still after a death.
bench-recovery: $(VENV)/.runs
	$(BIN)/python tests/bench/watching.py

# What it costs to run an item in threads, in processes, on a cluster. (Dask is in the dev group.)
bench-scaling: $(VENV)/.checks
	$(BIN)/python tests/bench/scaling.py

clean:
	rm -rf $(VENV) .venv-3.* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .milepost
	find engine cli tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
