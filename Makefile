# The verbs. Each sets up what it needs; `make` alone lists them.
.DEFAULT_GOAL := help
.PHONY: help setup demo test coverage check lint format types vectors bench million soak plots chaos simulate-faults simulate-mutants failovers slowloris overload schema wasm wasm-reproducible sdk demo-browser bench-browser leave lock clean

CLIENTS ?= 20000
SEED ?= 1
EPSILON ?= 1
SECONDS ?= 600
RUNS ?= 60
MINUTES ?= 10
ARGS ?=
SEEDS ?= 0:1000
CASES ?= 1000
TRACE ?= 0

BIN := .venv/bin
CARGO_MANIFEST := dandelion/kernel/Cargo.toml

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make .venv and build the kernel; quick when nothing changed
	@scripts/setup.sh

demo: setup ## one question, CLIENTS=20000 SEED=1 EPSILON=1, the answer beside the truth
	@$(BIN)/dandelion demo --clients $(CLIENTS) --seed $(SEED) --epsilon $(EPSILON) $(ARGS)

test: ## everything, from a bare machine; what CI runs
	@scripts/test.sh

coverage: ## the Python tests, and which lines and branches they reach
	@scripts/test.sh python -- --cov --cov-report=term $(ARGS)

check: ## all checks that run no test: lint, types, imports
	@scripts/test.sh ruff types imports clippy

lint: ## ruff, rustfmt and clippy
	@scripts/test.sh ruff clippy

types: ## mypy
	@scripts/test.sh types

format: setup ## rewrite the files as lint wants them
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .
	cargo fmt --manifest-path $(CARGO_MANIFEST)

vectors: setup ## write tests/vectors/ anew
	$(BIN)/python -m dandelion.vectors $(ARGS)

bench: setup ## ratios to baselines of the same run, into the record; ARGS="store scale" for some
	@$(BIN)/python -m tests.bench $(ARGS)

million: CLIENTS = 1000000
million: setup ## one round of CLIENTS=1000000 over HTTP, exact; where the time went
	@$(BIN)/python -m tests.bench.million --clients $(CLIENTS) $(ARGS)

soak: setup ## a steady 2,900 reports/s for MINUTES=10 while rounds open, seal and release
	@$(BIN)/python -m tests.bench.soak --minutes $(MINUTES) $(ARGS)

plots: setup ## cost against clients and slots, measured anew and drawn into docs/
	@$(BIN)/python -m tests.bench.plots $(ARGS)

chaos: setup ## real processes under faults, SECONDS=600 SEED=1; ARGS="--profile kill" for one kind
	@$(BIN)/python -m tests.faults --seconds $(SECONDS) --seed $(SEED) $(ARGS)

simulate-faults: setup ## the product on a loop of virtual time: SEEDS=0:1000, SEEDS=7 TRACE=1, SEEDS=points
	@PYTHONHASHSEED=0 TRACE=$(TRACE) $(BIN)/python -m tests.sim $(SEEDS)

failovers: SEEDS = 1:50
failovers: setup ## rounds over a cluster with drawn failovers, SEEDS=1:50; ARGS=--redis
	@$(BIN)/python -m tests.cluster --seeds $(SEEDS) $(ARGS)

simulate-mutants: setup ## which of the product's broken twins the simulation notices, 100 seeds each; ARGS=20 for fewer
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.sim.hunt $(ARGS)

slowloris: setup ## 5,000 slow connections beside 500 good clients; ARGS=--record appends to the record
	@$(BIN)/python -m tests.edge.slowloris $(ARGS)

overload: setup ## four times what a collector can take, for a minute; ARGS=--record
	@$(BIN)/python -m tests.edge.overload $(ARGS)

schema: setup ## the public interface against its OpenAPI document, CASES=1000 of each kind, SEED=1
	@$(BIN)/python -m tests.edge.schema --cases $(CASES) --seed $(SEED)

wasm: ## compile the kernel for pages; rustup's wasm32 target, else Debian's Rust
	@scripts/wasm.sh

wasm-reproducible: ## compile it in three directories, to the same bytes
	@scripts/wasm.sh reproducible

sdk: ## build the browser package into wasm_stub/dist; needs Node
	@scripts/sdk.sh

demo-browser: setup sdk ## the demo page: take part in a browser beside simulated people; ARGS="--round 30s"
	@cd wasm_stub && node demo/build.mjs
	@$(BIN)/dandelion up --demo --folder .dandelion/demo $(ARGS)

bench-browser: setup sdk ## the browser SDK in Chromium beside Divvi Up's client, into the record; ARGS=--dry
	@$(BIN)/python -m tests.bench.bench_browser $(ARGS)

leave: setup sdk ## reports of pages left at once, Chromium, RUNS=60 each; ARGS="--firefox --record"
	@scripts/browsers.sh
	@case "$(ARGS)" in *--firefox*) scripts/browsers.sh firefox ;; esac
	@$(BIN)/python -m tests.browser.leave --runs $(RUNS) $(ARGS)

lock: ## write requirements.lock anew; ARGS="--upgrade" for newer versions
	@scripts/lock.sh $(ARGS)

clean: ## remove what the other verbs made
	rm -rf .venv .setup.lock .wasm.lock dandelion/_kernel*.so dandelion/kernel/target
	rm -rf wasm_stub/build wasm_stub/dist wasm_stub/node_modules
	rm -rf .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
