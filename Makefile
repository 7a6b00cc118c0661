# Everything needs only Python 3.11 or later, make and git; each target does its own set-up.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq install
PYTEST_ARGS ?= -n 2 --dist loadgroup

# In CI a missing server is a failure, on a laptop a skipped test.
ifdef CI
export ALERTROUTER_TEST_REQUIRE_ALL := 1
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test reliability chaos fuzz mutate check fmt bench docs sbom lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' Makefile

run: $(VENV)/.installed ## start the router with an embedded Redis, the sample rules and a PagerDuty stand-in
	@exec $(BIN)/alertrouter serve --sandbox --log-format console

test: $(VENV)/.installed-test ## run all tests on real servers, then the checks
	@tools/system-packages curl redis-server prometheus promtool prometheus-alertmanager amtool
	$(BIN)/pytest $(PYTEST_ARGS)
	@$(MAKE) --no-print-directory check

reliability: $(VENV)/.installed-test ## kill, freeze and deceive real processes, and print a table; LONG=1 for hours of it
	@tools/system-packages curl redis-server prometheus promtool prometheus-alertmanager amtool faketime
	ALERTROUTER_RELIABILITY_LONG=$(LONG) ALERTROUTER_RELIABILITY_BODIES=200000 $(BIN)/pytest tests/reliability -n 4 --dist loadgroup

chaos: $(VENV)/.installed-test ## random faults in a random order, the same for the same SEED=; CHAOS=--help for more
	@tools/system-packages redis-server
	$(BIN)/python -m tests.rig.chaos $(if $(SEED),--seed $(SEED)) $(CHAOS)

fuzz: $(VENV)/.installed-test ## broken input for all that reads any, from SEED= and FIRST= on, COUNT= of each; TARGET=http for a running router
	@tools/system-packages redis-server
	$(BIN)/python -m tests.fuzz $(TARGET) $(foreach word,SEED FIRST COUNT,$(if $($(word)),--$(shell echo $(word) | tr A-Z a-z) $($(word))))

mutate: $(VENV)/.installed-test ## flip each condition that decides about pages; list what no test notices
	@tools/system-packages redis-server
	@$(BIN)/python -m tools.mutate $(if $(ONLY),--only $(ONLY))

check: $(VENV)/.installed-test ## check format, lint, types, imports and what bandit finds
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src tools bench

fmt: $(VENV)/.installed-test ## format, and mend what the linter can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-test ## write docs/checks and docs/schema anew, from the code
	@$(BIN)/python -m tools.generate_docs

bench: $(VENV)/.installed-test ## measure, and print one table
	@$(BIN)/python -m bench

sbom: $(VENV)/.installed-test ## write dist/alertrouter.cdx.json: every package that is shipped, with hashes and licences
	@$(BIN)/python -m tools.sbom

clean: ## remove what was installed and cached; data/ stays
	rm -rf $(VENV) dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Pins stay where they still fit; `make lock UPGRADE=--upgrade` takes the newest.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)
lock: $(VENV)/.installed-test ## pin every package, with hashes, in requirements/
	$(COMPILE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) pyproject.toml --extra test -c requirements/runtime.txt -o requirements/test.txt
	printf 'editables\nhatchling\n' | $(COMPILE) - -c requirements/test.txt -o requirements/build.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("alertrouter needs Python 3.11 or later; " \
		+ sys.executable + " is " + sys.version.split()[0] + ". Name another one: make PYTHON=/path/to/python3.11")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || tools/system-packages python3-venv
	@$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.installed: pyproject.toml requirements/runtime.txt requirements/build.txt | $(BIN)/python
	@echo "Installing alertrouter into $(VENV) (once, about 20 s)"
	@$(PIP) --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.installed-test: requirements/test.txt $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) (once, about 15 s)"
	@$(PIP) --require-hashes -r requirements/test.txt
	@touch $@
