# make demo and make test are the two commands of the README; the rest is for people who work on Oxcart.
.PHONY: help build demo test sim tools lint fmt bench chaos backlog doc fuzz mutants

# The folder whose files `make demo` works on.
DIR ?= .
# What `make chaos` runs: rows of docs/chaos.md (all when empty), seconds of load for each, and the seed of load and faults.
ROWS ?=
# SECONDS: 60 for a row of chaos, 600 for a target of `make fuzz`, when not set.
SECONDS ?=
SEED ?= 1
# Tasks of `make backlog`.
TASKS ?= 1000000

help: ## This list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

build: ## The release binary, target/release/oxcart
	cargo build --release -p oxcart

demo: build ## Real work on real input in embedded mode (DIR=folder)
	target/release/oxcart demo $(DIR)

tools: ## What the tests need, installed if missing
	scripts/install-test-tools.sh

test: tools lint ## Everything: lints and all tests
	cargo test --workspace --no-fail-fast

# Worlds that `make sim` runs, and further arguments for it.
SEEDS ?= 1000
ARGS ?=

sim: ## The whole system on simulated time under every fault (SEEDS=n; docs/simulation.md)
	cargo run --profile sim -p oxcart-sim -- --seeds $(SEEDS) $(ARGS)

lint: tools ## Formatting, clippy, contracts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	.tools/bin/buf lint
	.tools/bin/buf format --diff --exit-code
	@# Compares with main where there is one, which is not so in a fresh clone of a single commit.
	@if git rev-parse --verify -q refs/heads/main >/dev/null; then .tools/bin/buf breaking --against '.git#branch=main'; fi

fmt: tools ## Format code and contracts
	cargo fmt --all
	.tools/bin/buf format -w

bench: ## Micro benchmarks; whole systems are measured by `oxcart bench`
	cargo bench --workspace

chaos: tools ## Real processes under real faults: ROWS=K2,R1 SECONDS=60 SEED=1
	cargo build --release -p oxcart -p oxcart-tests --bin oxcart --bin oxcart-chaos
	target/release/oxcart-chaos run --seconds $(or $(SECONDS),60) --seed $(SEED) $(if $(ROWS),--rows $(ROWS))

backlog: tools ## TASKS=1000000 in one queue with a window of 100,000
	cargo build --release -p oxcart -p oxcart-tests --bin oxcart --bin oxcart-chaos
	target/release/oxcart-chaos backlog --tasks $(TASKS)

doc: ## API documentation, target/doc
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps

fuzz: ## Bad input for every RPC and parser, for SECONDS a target (600)
	OXCART_FUZZ_SECONDS=$(or $(SECONDS),600) cargo test --workspace --test fuzz

mutants: ## Takes away one guard at a time: the model tests must notice
	scripts/mutants.sh queue
	scripts/mutants.sh store
