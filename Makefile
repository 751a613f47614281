# `make` lists the targets. Each sets up .venv by itself, from requirements.lock, and then runs. The two tools that this
# takes, uv and the builder of what comes as source only, stand in requirements-tools.lock.
# ARGS passes words on:  make train ARGS="-m train.seed=0,1"
# KEY=VALUE words need no ARGS:  make train model.hidden_width=256
# CLUSTER=1 adds Ray and the driver of PostgreSQL to .venv; what needs them adds them by itself.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
IN_PARALLEL := --numprocesses 2 --dist worksteal
COMMANDS := train sweep studies compare diff report promote rollback history predict serve dashboard ui reproduce doctor
TARGETS := $(COMMANDS) help setup test test-quick test-slow coverage bench pictures docs lint format lock clean

# Make takes KEY=VALUE for a variable and every other word for a target. The first are passed on, the others are refused
# before anything runs.
KEYS := $(filter-out ARGS CLUSTER PYTHON SHELL MAKEFLAGS,$(.VARIABLES))
KEYS := $(foreach key,$(KEYS),$(if $(filter command,$(firstword $(origin $(key)))),$(key)))
quote = '$(subst ','\'',$1)'
override ARGS += $(foreach key,$(KEYS),$(call quote,$(key)=$(value $(key))))

# Written last, so that a failed or interrupted installation is never taken for a good one; named after the folder,
# since a virtual environment does not survive being moved.
INSTALLED := .venv/installed-$(shell pwd | cksum | cut -d ' ' -f 1)
WITH_CLUSTER := $(INSTALLED)-with-cluster
NEEDED := $(if $(CLUSTER)$(findstring executor=ray,$(ARGS))$(findstring postgresql,$(ARGS) $(MLFLOW_TRACKING_URI)),\
  $(WITH_CLUSTER),$(INSTALLED))

WORDS := $(filter-out $(TARGETS) $(INSTALLED) $(WITH_CLUSTER),$(MAKECMDGOALS))
ifneq ($(WORDS),)
  $(error not a target: $(WORDS). Pass it on with ARGS: make $(firstword $(filter $(COMMANDS),$(MAKECMDGOALS)) \
    TARGET) ARGS="$(WORDS)")
endif

# The lock holds every extra; what is installed of it is what pyproject.toml names.
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes \
  --constraint requirements.lock --build-constraint requirements-tools.lock --requirements pyproject.toml --extra dev

.PHONY: $(TARGETS)

help: ## list the targets
	@echo 'make TARGET [KEY=VALUE ...] [ARGS="..."]'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' Makefile | expand -t 14

$(INSTALLED): requirements.lock requirements-tools.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo 'error: $(PYTHON) is not Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 ...' >&2; exit 1; }
	@if [ -e .venv ]; then echo 'setting up .venv again, because the lock or the folder has changed: about a minute'; \
	  else echo 'setting up .venv: a minute or more, as fast as the network'; fi
	@rm -rf .venv
	@echo '  1 of 3: the installer'
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-tools.lock
	@echo '  2 of 3: the libraries, 3 GB on disk with TensorFlow'
	@$(INSTALL)
	@echo '  3 of 3: this project'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

$(WITH_CLUSTER): $(INSTALLED)
	@echo 'adding Ray and the driver of PostgreSQL to .venv, 260 MB on disk'
	@$(INSTALL) --extra cluster
	@touch $@

setup: $(NEEDED) ## set up .venv and run nothing (CLUSTER=1 adds Ray and the driver of PostgreSQL)

train: $(NEEDED) ## train, evaluate and track the baseline
	@$(BIN)/mnist-pipeline train $(ARGS)

sweep: $(NEEDED) ## search for a better model around the baseline, and confirm it
	@$(BIN)/mnist-pipeline sweep $(ARGS)

studies: $(NEEDED) ## list the studies that sweeps made
	@$(BIN)/mnist-pipeline studies $(ARGS)

compare: $(NEEDED) ## compare the runs: which is best, by how much, and how certain that is
	@$(BIN)/mnist-pipeline compare $(ARGS)

diff: $(NEEDED) ## compare two runs, down to single images: make diff ARGS="A B"
	@$(BIN)/mnist-pipeline diff $(ARGS)

report: $(NEEDED) ## write a page about a run or a study: make report ARGS=champion
	@$(BIN)/mnist-pipeline report $(ARGS)

promote: $(NEEDED) ## make the best run's model the champion, if it passes the gates
	@$(BIN)/mnist-pipeline promote $(ARGS)

rollback: $(NEEDED) ## make an earlier champion the champion again: make rollback ARGS='--reason "why"'
	@$(BIN)/mnist-pipeline rollback $(ARGS)

history: $(NEEDED) ## show every decision about the champion
	@$(BIN)/mnist-pipeline history $(ARGS)

predict: $(NEEDED) ## classify images with the champion: make predict ARGS="some.png folder/"
	@$(BIN)/mnist-pipeline predict $(ARGS)

serve: $(NEEDED) ## serve the champion over HTTP
	@$(BIN)/mnist-pipeline serve $(ARGS)

dashboard: $(NEEDED) ## look at a sweep's study in Optuna's dashboard
	@$(BIN)/mnist-pipeline dashboard $(ARGS)

ui: $(NEEDED) ## look at the runs in the MLflow UI
	@$(BIN)/mnist-pipeline ui $(ARGS)

reproduce: $(NEEDED) ## train a run again and compare every bit: make reproduce ARGS=champion
	@$(BIN)/mnist-pipeline reproduce $(ARGS)

doctor: $(NEEDED) ## check the store (ARGS=--fix repairs it, ARGS=--prune frees space)
	@$(BIN)/mnist-pipeline doctor $(ARGS)

test: $(WITH_CLUSTER) ## run the tests (set MNIST_PIPELINE_DATA_DIR for those on the real MNIST)
	@$(BIN)/python -m pytest $(IN_PARALLEL) $(ARGS)

test-quick: $(WITH_CLUSTER) ## run the tests that need no child processes, in a minute or two
	@$(BIN)/python -m pytest $(IN_PARALLEL) -m "quick and not slow" $(ARGS)

test-slow: $(WITH_CLUSTER) ## run the long tests too
	@$(BIN)/python -m pytest $(IN_PARALLEL) -m "slow or not slow" $(ARGS)

coverage: $(WITH_CLUSTER) ## run the tests, and require the share of the code that they run
	@$(BIN)/python -m pytest $(IN_PARALLEL) --cov --cov-report=term:skip-covered $(ARGS)

bench: $(WITH_CLUSTER) ## measure (ARGS=--write puts the table into docs/benchmarks.md)
	@$(BIN)/python -m benchmarks $(ARGS)

pictures: $(WITH_CLUSTER) ## make the pictures and quotations in the documents from real runs (needs MNIST and Chromium)
	@$(BIN)/python docs/make_pictures.py $(ARGS)

docs: $(INSTALLED) ## write the tables of docs/configuration.md from the source
	@$(BIN)/python docs/make_configuration.py

lint: $(WITH_CLUSTER) ## check format, style, types and the layers of imports
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(INSTALLED) ## format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(INSTALLED) ## resolve the dependencies again into requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.lock pyproject.toml

clean: ## remove .venv and caches, never runs or data
	@for path in .venv .mypy_cache .pytest_cache .ruff_cache dist test-results; do \
	  if [ -e "$$path" ]; then echo "removing $$path"; rm -rf "$$path"; fi; done
	@find src tests benchmarks -type d -name __pycache__ -exec rm -rf {} +
	@echo 'kept: mlruns/ (runs) and data/'
