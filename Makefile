# Everything a person types here. `make` alone lists it. Nothing is installed outside .venv, and no root is needed.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Bytecode is kept, whatever the environment says: each server of a test would compile itself anew, process by process.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
STAMP := .venv/.installed
CODE := mta queue policies bench tests docs
CONFIG ?= mta.toml
ARGS ?=
SEEDS ?= 200

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(STAMP) ## Make .venv with the mta command and all that checks it (again when pyproject.toml changed)

$(STAMP): pyproject.toml
	@found=; \
	for candidate in $${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "setup: no Python 3.11 or newer with its venv module was found (tried python3.11 and python3)." >&2; \
	  echo "       Debian, Ubuntu: apt install python3 python3-venv; or: make PYTHON=/path/to/python3.11 setup" >&2; \
	  exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	  echo "setup: making .venv with $$found ($$("$$found" --version))"; \
	  "$$found" -m venv --clear .venv; \
	fi
	@echo "setup: installing into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,fast-signing]'
	@touch $@

.PHONY: demo
demo: $(STAMP) ## Server, five providers of different temper, 20,000 signed messages, then a table (half a minute)
	@$(BIN)/python -m bench.demo $(ARGS)

# Status 5, "no tests collected", is a failure as any other, but where ARGS chose and one of the two had none of them.
.PHONY: test
test: $(STAMP) ## All tests; ARGS="-k word" for some of them
	@$(BIN)/python -m pytest -q -n 3 --dist worksteal $(wildcard tests/layout tests/unit tests/simulation) $(ARGS) \
	  || { status=$$?; [ $$status = 5 ] && [ -n "$(strip $(ARGS))" ]; }
	@$(BIN)/python -m pytest -q -n 5 --dist worksteal $(wildcard tests/end_to_end tests/interop) $(ARGS) \
	  || { status=$$?; [ $$status = 5 ] && [ -n "$(strip $(ARGS))" ]; }

.PHONY: simulate
simulate: $(STAMP) ## Crashes and failures on a virtual clock, by seed: SEEDS=4000 for more, SEED=7 for one
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/simulation $(if $(SEED),--seed $(SEED) -n 0,--seeds $(SEEDS)) $(ARGS)

.PHONY: crash
crash: $(STAMP) ## The real server killed under load, by seed: ROUNDS=400 for more, SEED=17 for one
	@$(BIN)/python -m bench.crash $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: check
check: $(STAMP) ## Format, lint, types, import contracts, layout, examples in the documentation
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/pyright --warnings
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/layout
	@find $(CODE) -name '*.py' -exec wc -l {} + | awk '$$2 != "total" && $$1 > 450 { print "long, perhaps two nouns:", $$2, $$1 }'

.PHONY: format
format: $(STAMP) ## Bring the code into the one format
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

.PHONY: docs
docs: $(STAMP) ## Write again what is made from the code: the lists of RFCs, providers and policy keys, the guide's screens
	$(BIN)/python docs/rfc_list.py
	$(BIN)/python docs/provider_list.py
	$(BIN)/python docs/policy_reference.py
	$(BIN)/python docs/guide_screens.py

.PHONY: run
run: $(STAMP) ## Start the server in the foreground with mta.toml (or CONFIG=FILE)
	@$(BIN)/mta serve --config $(CONFIG)

.PHONY: bench
bench: $(STAMP) ## Relay speed on this machine: messages a second, CPU a message, latency (ARGS="--help" for more; bench/README.md)
	@$(BIN)/python -m bench run relay --rounds 3 $(ARGS)

.PHONY: clean
clean: ## Remove .venv, caches and the demo's files; the queue and the logs in var/ stay
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis var/demo var/bench var/crash
	find bench docs mta policies queue tests -name __pycache__ -type d -prune -exec rm -rf {} +
