# Every target sets up what it needs in a virtual environment of its own.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
COLAB := _build/colab-environment
AUDIT := _build/audit-environment
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

PROFILE ?= auto
PROTOCOL ?= careful
SEED ?= 0
SEEDS ?= 0 1 2
PORT ?= 8000
SWEEP ?= models
KILLS ?= 200
MUTATIONS ?= 10000
BENCH ?= $(wildcard tests/benchmarks/bench_*.py)
BENCH_FOLDER := _build/bench/$(or $(TLHELPERS_PROFILE),auto)
BENCH_REPORTS = $(patsubst %.py,$(BENCH_FOLDER)/%.json,$(notdir $(BENCH)))

.PHONY: help book test test-quick test-all bench torture audit lint format serve pdf links records sweep pocket colab colab-check clean
.DEFAULT_GOAL := help
.NOTPARALLEL: # benchmarks would disturb each other

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

$(READY): requirements.txt pyproject.toml package-lock.json
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --quiet --no-deps --editable .
	$(BIN)/python -m ipykernel install --sys-prefix --name python3 >/dev/null
	$(BIN)/python -m tlhelpers.book.programs
	touch $@

book: $(READY) ## execute what has changed and build the site (PROFILE, PROTOCOL, SEED, ONLY, JOBS, REPO, STRICT)
	$(BIN)/python -m tlhelpers.book.build book --profile $(PROFILE) --protocol $(PROTOCOL) --seed $(SEED) $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS)) $(if $(TIME_LIMIT),--time-limit $(TIME_LIMIT)) $(if $(REPO),--repository $(REPO)) $(if $(filter-out 0,$(STRICT)),--strict)

test: lint ## lint, then run the tests, one process per core and at most four
	$(PYTEST)

test-quick: lint ## lint, then run what takes a moment: no chapters, no browser, no trainings to speak of
	$(PYTEST) -m "not slow and not long and not network"

test-all: lint ## all tests, those that take long too: the wheel in an empty environment, each chapter alone, torture
	$(PYTEST) -m "not network"
	$(MAKE) torture

bench: $(BENCH_REPORTS) ## measure the book's ways against the usual ones, an hour or so (BENCH, RECORD=1 keeps it for the book); resumable
	$(BIN)/python -m tlhelpers.results.benchmarks $^ $(if $(RECORD),--record)
	rm $^

$(BENCH_FOLDER)/%.json: $(READY) $(BENCH) $(wildcard tlhelpers/*.py tlhelpers/*/*.py)
	mkdir -p $(BENCH_FOLDER)
	$(BIN)/python -m pytest $(filter %/$*.py,$(BENCH)) --timeout 0 --no-header -q --benchmark-json $@.part
	mv $@.part $@

torture: $(READY) ## kill work two hundred times at random moments, damage ten thousand pictures (KILLS, MUTATIONS)
	$(BIN)/python -m pytest tests/test_torture.py -rP --timeout 0 --kills $(KILLS) --mutations $(MUTATIONS)

audit: ## ask whether a known weakness is in one of the packages (needs the internet)
	$(PYTHON) -m venv --clear $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet pip-audit
	$(AUDIT)/bin/pip-audit --requirement requirements.txt --no-deps --disable-pip

lint: $(READY) ## check code, what may import what, formatting and that notebooks hold no outputs
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/ruff format --check .
	$(BIN)/nbstripout --verify book/*.ipynb

format: $(READY) ## format code and strip notebooks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/nbstripout book/*.ipynb

serve: $(READY) ## serve the built site on http://localhost:8000 (PORT)
	$(BIN)/python -m tlhelpers.book.serving $(PORT)

pdf: $(READY) ## print the built book into one PDF file (needs Chromium)
	$(BIN)/python -m tlhelpers.book.pdf

links: $(READY) ## check that the links of the built book lead somewhere (needs the internet)
	$(BIN)/jupyter-book build _build/source --path-output . --builder linkcheck

records: $(READY) ## train the recorded runs (PROFILE=full or pocket, PROTOCOL, SEEDS, ONLY); resumable
	$(BIN)/python -m tlhelpers.book.build records --profile $(if $(filter command line,$(origin PROFILE)),$(PROFILE),full) --protocol $(if $(filter command line,$(origin PROTOCOL)),$(PROTOCOL),published) --seeds $(SEEDS) $(if $(ONLY),--only $(ONLY))

sweep: $(READY) ## train what no chapter has room for, side by side (SWEEP, JOBS, CLUSTER, ONLY); resumable
	$(BIN)/python -m tlhelpers.experiments.sweeps $(SWEEP) $(if $(JOBS),--jobs $(JOBS)) $(if $(CLUSTER),--cluster $(CLUSTER)) $(if $(ONLY),--only $(ONLY))

pocket: $(READY) ## train the embedded backbone from scratch (half an hour on two CPU cores); resumable
	$(BIN)/python -m tlhelpers.experiments.pretraining

colab: $(READY) ## copies of the chapters that install the helpers first (REPO=owner/name, REF)
	$(BIN)/python -m tlhelpers.book.colab stamp "$(REPO)" $(if $(REF),--ref $(REF))

colab-check: $(READY) ## execute each chapter alone, smallest budget, with the versions that Colab brings
	$(PYTHON) -m venv --clear $(COLAB)
	$(COLAB)/bin/python -m pip install --quiet --constraint .ci/colab.txt ".[labels,litert]" ipykernel ipywidgets
	TLHELPERS_QUIET=1 $(BIN)/python -m tlhelpers.book.colab check --python $(COLAB)/bin/python

clean: ## remove what was built
	rm -rf _build .pytest_cache .ruff_cache book/.ruff_cache
