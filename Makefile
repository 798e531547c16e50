# Every command of the project. CI runs what a person runs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(PYTHON) -m pip --python $(BIN)/python --disable-pip-version-check --quiet
UV = $(BIN)/uv --quiet pip
ARGS ?=
FUZZ ?= 60
# Four more than cores, because tests wait much; six at most, because each process has servers of its own.
TEST_PROCESSES ?= $(shell $(PYTHON) -c 'import os; print(min(6, (os.cpu_count() or 1) + 4))')

# Tests start Python hundreds of times: it may keep what it has compiled, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo dev run migrate unit quick test long chaos fuzz storm bench bench-quick bench-exactly-once check lint types contracts audit fix lock wheels schema picture docs clean

help: ## List the targets
	@awk -F ':.*## ' '/^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

##@ See it work

demo: $(VENV)/ready ## Show it working: servers, a worker, Jane, a POST and a GET, and an import of 10,000 people
	@$(BIN)/users-worker demo $(ARGS)

dev: $(VENV)/ready ## Run PostgreSQL, Valkey and a worker until Ctrl-C
	@$(BIN)/users-worker dev $(ARGS)

##@ Run it

setup: $(VENV)/ready ## Make the virtual environment with the locked dependencies
	@echo "$(BIN)/users-worker is ready; next: make demo shows it working, make dev runs it, make unit tests it"

migrate: $(VENV)/ready ## Apply the migrations to DATABASE_URL
	@$(BIN)/users-worker migrate $(ARGS)

run: $(VENV)/ready ## Run a worker on DATABASE_URL and REDIS_URL
	@$(BIN)/users-worker run $(ARGS)

##@ Change it

fix: $(VENV)/ready ## Mend style and formatting where that can be done by a program
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@PYTHONPATH=. $(BIN)/python tests/docs/settings_table.py
	@PYTHONPATH=. $(BIN)/python tests/docs/metrics_table.py

unit: $(VENV)/ready ## Run the tests that need no server and no process (ARGS="path -k name" for some)
	@$(BIN)/python -m pytest -m unit $(if $(ARGS),,--numprocesses 2 --dist worksteal) $(ARGS)

quick: $(VENV)/ready ## Run these and the tests on servers that all share (ARGS=, and WITHIN= as with long)
	@$(BIN)/python -m pytest -m quick --numprocesses $(TEST_PROCESSES) --dist worksteal \
		$(if $(WITHIN),--within $(WITHIN)) $(ARGS)

# The slowest are told, so that nobody needs to look for what has become slow.
test: $(VENV)/ready ## Run all tests but the long ones (ARGS="path -k name" for some)
	@$(BIN)/python -m pytest -m "not long" --numprocesses $(TEST_PROCESSES) --dist worksteal --durations 15 $(ARGS) || { \
		[ $$? = 1 ] && echo "what failed runs once more, alone" && \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS); }

long: $(VENV)/ready ## Run the tests that take half a minute each (WITHIN=60: those that can begin in this time)
	@$(BIN)/python -m pytest -m long --numprocesses $(TEST_PROCESSES) --dist worksteal \
		$(if $(WITHIN),--within $(WITHIN)) $(ARGS) || { \
		[ $$? = 1 ] && echo "what failed runs once more, alone" && \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(ARGS); }

check: lint types contracts audit test long ## Run everything that CI runs

##@ Checks, one by one

lint: $(VENV)/ready ## Check style and formatting
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@! git ls-files --cached --ignored --exclude-standard 2>/dev/null | sed 's/$$/: is committed, though .gitignore names it/' | grep .

types: $(VENV)/ready ## Check types
	@$(BIN)/mypy

contracts: $(VENV)/ready ## Check which package may import which
	@$(BIN)/lint-imports --no-logo

audit: $(VENV)/ready ## Look up known vulnerabilities of the locked runtime dependencies
	@$(BIN)/python requirements/audit.py

docs: .venv-docs/ready ## Build the documentation as a site into site/; a wrong link fails
	@NO_COLOR=1 .venv-docs/bin/zensical build --strict --clean

##@ Prove and measure it

chaos: $(VENV)/ready ## Break everything at once and count (SEED= JOBS=5000 DURATION=60 FAULTS=kill,lock)
	@$(BIN)/python -m chaos $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) \
		$(if $(DURATION),--duration $(DURATION)) $(if $(FAULTS),--faults $(FAULTS)) $(ARGS)

fuzz: $(VENV)/ready ## Fuzz the reading of messages for FUZZ seconds (60); Linux on x86-64, Python 3.11 to 3.13
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/fuzz.txt
	@PYTHONPATH=. $(BIN)/python tests/fuzz/harness.py -max_total_time=$(FUZZ) -verbosity=0 -print_final_stats=1

storm: $(VENV)/ready ## Share a client between 50 threads for a minute, through a network that fails (ARGS="--tasks --kill")
	@PYTHONPATH=. $(BIN)/python tests/arqonce/client/programs/storm.py $(ARGS)

bench: $(VENV)/ready .venv-bench/ready .venv-bench-taskiq/ready ## Compare with the libraries that left arq, 30 minutes; writes docs/benchmarks.*
	@$(BIN)/python -m bench --command "make bench" --output docs $(ARGS)

bench-quick: $(VENV)/ready .venv-bench/ready .venv-bench-taskiq/ready ## The same with few contenders and small numbers, 3 minutes; prints only
	@$(BIN)/python -m bench --command "make bench-quick" --quick $(ARGS)

bench-exactly-once: $(VENV)/ready ## Measure what receipts and outbox cost
	@$(BIN)/python -m bench.exactly_once $(ARGS)

##@ Release it

picture: $(VENV)/ready ## Draw the picture of the console in the README anew, with Chromium and pngquant
	@PICTURE=docs/console.png $(BIN)/python -m pytest -q tests/arqonce/console/browser/test_pictures.py -k anew
	@pngquant --force --strip --output docs/console.png 256 docs/console.png # a third of the bytes, and looks the same

schema: $(VENV)/ready ## Write the contract of a release, schema/released.json; tests compare the code with it
	@$(BIN)/users-worker schema > schema/new.json && mv schema/new.json schema/released.json

lock: $(VENV)/ready ## Write the hash-pinned requirements anew from both pyproject.toml (ARGS=--upgrade)
	@$(BIN)/python requirements/lock.py $(ARGS)

wheels: $(VENV)/ready ## Build the library arqonce, users-worker, and its payloads users-jobs, into dist/
	@for project in arqonce . jobs; do \
		(cd $$project && $(CURDIR)/$(BIN)/python -m hatchling build -d $(CURDIR)/dist) || exit; done

clean: ## Remove the environment, caches and data of the embedded servers
	@rm -rf $(VENV) .venv-bench .venv-bench-taskiq .venv-docs site .cache .data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

# Stamp of the installed environment. uv installs in a tenth of the time; where it cannot reach what pip can, pip does it. The second form of venv is for Debian without python3-venv.
$(VENV)/ready: requirements/dev.txt requirements/uv.txt pyproject.toml arqonce/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	@echo "installing the locked dependencies into $(VENV) (once)"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@$(PIP) install --require-hashes --only-binary :all: -r requirements/uv.txt
	@$(UV) install --python $(BIN)/python --require-hashes --only-binary :all: -r requirements/dev.txt 2>/dev/null || \
		$(PIP) install --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(PIP) install --no-deps --no-index --no-build-isolation --editable arqonce --editable .
	@pwd -P > $@

# The programs of an environment hold the path of this folder. In a folder that was moved they are not found, and in a
# copy they would run the code of the first. An empty file says nothing of the folder: that environment is left as it is.
HOME_OF_READY := $(shell cat $(VENV)/ready 2>/dev/null)
ifneq ($(HOME_OF_READY),)
ifneq ($(HOME_OF_READY),$(CURDIR))
$(VENV)/ready: moved
moved:
	@echo "$(VENV) was made for $(HOME_OF_READY): it is made anew"
.PHONY: moved
endif
endif

# Environments of the libraries that are compared. crontab, which streaQ needs, comes without a wheel.
.venv-bench/ready .venv-bench-taskiq/ready: .venv-%/ready: requirements/%.txt
	@echo "installing the locked libraries to compare with into .venv-$* (once)"
	@rm -rf .venv-$*
	@$(PYTHON) -m venv .venv-$* 2>/dev/null || $(PYTHON) -m venv --clear --without-pip .venv-$*
	@$(PYTHON) -m pip --python .venv-$*/bin/python --disable-pip-version-check --quiet \
		install --require-hashes --only-binary :all: --no-binary crontab -r requirements/$*.txt
	@touch $@

.venv-docs/ready: requirements/docs.txt | $(VENV)/ready
	@echo "installing the locked generator of the documentation into .venv-docs (once)"
	@rm -rf .venv-docs
	@$(PYTHON) -m venv .venv-docs 2>/dev/null || $(PYTHON) -m venv --clear --without-pip .venv-docs
	@$(UV) install --python .venv-docs/bin/python --require-hashes --only-binary :all: -r requirements/docs.txt 2>/dev/null || \
		$(PYTHON) -m pip --python .venv-docs/bin/python --disable-pip-version-check --quiet \
			install --require-hashes --only-binary :all: -r requirements/docs.txt
	@touch $@
