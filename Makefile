# Everything there is to do in this repository; `make` alone lists it. Targets do not run in parallel: the tests measure, and start virtual machines.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help packages venv bytecode samples demo check test test-full matrix bench fuzz completion lock protos launcher bench-containerd bench-snapshotter lab lab-shell clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
#: Some environments forbid bytecode, and imports that are not compiled beforehand would triple a command's start; nor is output buffered there as usual.
unexport PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED

TIERS := unit root lab
#: Seconds that one tier, one fuzz target may take.
TIER_SECONDS ?= 1200
FUZZ_SECONDS ?= 120

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

packages: ## install the Debian packages that are missing (as root)
	@scripts/install-packages.sh

venv: $(VENV)/.installed ## the virtual environment .venv, with the locked dependencies

$(VENV)/.installed: requirements.lock pyproject.toml setup.py
	$(PYTHON) -c 'import sys; sys.exit("unikeel needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@# It has done its work, and leaves a file that every interpreter would run when it starts.
	$(BIN)/python -m pip uninstall -q -y setuptools
	touch $@

launcher: ## what is written in C: the launcher, which containerd executes, into build/launcher, and the guests' init into build/init (with gcc)
	@PYTHONPATH=src $(PYTHON) -m unikeel.shim.launcher.building build/launcher/containerd-shim-unikeel-v2
	@PYTHONPATH=src $(PYTHON) -m unikeel.guests.init.building build/init/unikeel-init

bytecode: venv
	@$(BIN)/python -m compileall -q src

samples: venv ## build the sample images into build/samples (what is up to date is left alone)
	@$(BIN)/python -m samples.build

demo: packages venv samples bytecode launcher ## show it: run nginx from a block snapshot, with every strategy (as root)
	$(BIN)/python scripts/demo.py

check: venv ## lint, types and unit tests: under a minute
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	UNIKEEL_TIER=unit $(BIN)/python scripts/unit_tests.py

#: Every tier runs, also after one that failed. A tier that is asked for may not skip anything (tests/conftest.py). Only unit tests run several at a time.
run_tiers = status=0; for tier in $(TIERS); do echo "== tier $$tier"; \
	run="-m pytest -q tests/$$tier"; if [ $$tier = unit ]; then run=scripts/unit_tests.py; fi; \
	UNIKEEL_TIER=$$tier timeout --foreground -k 60 $(TIER_SECONDS) $(BIN)/python $$run || status=1; done; exit $$status

test: packages venv samples bytecode launcher ## every tier in its short form (as root): under 25 minutes
	@$(BIN)/python -m samples.build --verify hello nginx initrd layers
	@$(BIN)/python -m lab build
	@$(call run_tiers)

test-full: TIER_SECONDS := 7200
test-full: packages venv samples bytecode launcher ## every tier in its long form, the property tests with five more seeds (as root)
	@scripts/install-packages.sh --long
	@$(BIN)/python -m samples.build --verify
	@$(BIN)/python -m lab build
	@for seed in 1 2 3 4 5; do $(BIN)/python -m pytest -q tests/unit --hypothesis-seed=$$seed; done
	@export UNIKEEL_LONG=1; $(call run_tiers)

matrix: packages venv bytecode launcher ## boot every pair that this machine can, with each kind of root; the table of docs/matrix.md (as root)
	@$(BIN)/python -m samples.build >&2  # what is printed is the page
	@PYTHONPATH=tests:. $(BIN)/python tests/matrix.py

bench: packages venv samples bytecode ## measure; the table, and build/bench/main.json (as root)
	$(BIN)/python -m unikeel.bench

bench-containerd: packages venv samples bytecode launcher ## measure under containerd, in the lab; the table, and build/bench/containerd.json (as root, about an hour)
	@$(BIN)/python -m lab build
	$(BIN)/python -m unikeel.bench.containerd

bench-snapshotter: packages venv samples bytecode launcher ## measure block snapshotters, in the lab; the table, and build/bench/snapshotter.json (as root, an hour)
	@$(BIN)/python -m lab build
	$(BIN)/python -m unikeel.bench.snapshotter

fuzz: venv ## fuzz what reads foreign input, FUZZ_SECONDS (120) for each target
	@$(BIN)/python -c 'import atheris' || { echo "fuzzing needs atheris, which Python 3.11 and 3.12 have: make venv PYTHON=python3.12" >&2; exit 1; }
	@mkdir -p build/fuzz
	@for target in tests/fuzz/fuzz_*.py; do echo "== $$target"; \
		$(BIN)/python $$target -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=build/fuzz/; done

lab: packages venv ## build the lab: roots with containerd 1.7 and 2.x, and a virtual machine's disk (as root)
	@$(BIN)/python -m lab build

lab-shell: lab ## a prompt in it: WHERE=trixie, sid or vm (as root)
	@$(BIN)/python -m lab shell $(or $(WHERE),trixie)

completion: venv ## shell completions, into build/completion
	@mkdir -p build/completion
	@for shell in bash zsh fish; do $(BIN)/unikeel completion $$shell > build/completion/unikeel.$$shell; done

lock: ## choose the newest versions of all dependencies again, into requirements.lock
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -q --disable-pip-version-check uv
	@sed -n '/^#/!q;p' requirements.lock > build/lock/new
	@build/lock/bin/uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--extra dev --extra bench pyproject.toml >> build/lock/new
	@mv build/lock/new requirements.lock

#: With --pyi_out, the modules have types. The definitions are imported under their whole names: one of them is called types.
protos: venv ## make the modules of src/unikeel/containerd/wire from their .proto files again
	@cd src && ../$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. unikeel/containerd/wire/*.proto

clean: ## remove what was built (not .venv, and not the packages that the samples are made of)
	rm -rf build .mypy_cache .ruff_cache .pytest_cache .hypothesis src/*.egg-info
	find src tests samples scripts -name __pycache__ -prune -exec rm -rf {} +
