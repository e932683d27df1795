# Two commands do everything from a clean clone: `make demo` and `make test`.
# They need Python 3.11 or newer, git and make; everything else is installed into .venv.

PYTHON ?= python3
BUDGET_S ?= 120
SEED ?= 0
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A process that crashes ends the run: its test has failed, and xdist would wait for ever for one in its place.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --max-worker-restart 0

.PHONY: demo test test-all lint audit bench clean help

help:
	@echo "make demo    set up, then run the whole loop on real images (BUDGET_S=$(BUDGET_S) SEED=$(SEED))"
	@echo "make test    set up, then run all checks and tests (WORKERS=$(WORKERS) processes; 0: in one, as pytest does)"
	@echo "make test-all  the tests, the slow proofs, and those on several nodes"
	@echo "make lint    style, types, layers; licences and known faults of dependencies are told"
	@echo "make audit   the same of dependencies alone, which fails if there are any"
	@echo "make bench   benchmarks: tables, and JSON in bench-results/ (over an hour; tests/benchmarks/ has the longer forms)"
	@echo "make clean   remove the environment and what the commands above left"

demo: $(READY)
	$(BIN)/autovision demo --budget-s $(BUDGET_S) --seed $(SEED) --store demo-store --json demo.json

# What waits for Ray is begun first: tests/conftest.py says how the tests are divided.
test: lint
	$(PYTEST) tests/integration tests/unit

test-all: lint
	$(PYTEST) tests/cluster tests/slow tests/integration tests/unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --collect-only -qq tests
# What the world has found out about a package since yesterday is told, and is no fault of what is checked here.
	@$(MAKE) --no-print-directory audit || echo "WARNING: the audit found what is told above; \`make audit\` fails for it"

audit: $(READY)
	$(BIN)/pip-licenses --summary > /dev/null
	$(BIN)/python tests/audit.py

bench: $(READY)
	mkdir -p bench-results
	for bench in tests/benchmarks/bench_*.py; do $(BIN)/python $$bench --json bench-results/ || exit 1; done

# Installed again whenever what is declared changes. The marker is written last: an interrupted set-up is repeated.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar off -e '.[demo,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo-store demo.json bench-results .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
