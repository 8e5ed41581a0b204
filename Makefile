# One command a chore. Everything lives in .venv (Python) and .services (programs that pip cannot bring).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Tests wait (for servers, leases, kills) as long as they compute: one process more than there are processors.
WORKERS ?= $(shell expr $$(nproc) + 1)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all lint format services kubernetes schemas bench soak clean distclean

help:  ## list the chores
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: $(INSTALLED)  ## set up .venv with everything that pip can bring

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Snappy needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,kubernetes,mariadb,mount,postgres,s3,sftp,swift,webdav,test,lint]'
	touch $@

demo: install  ## back up the standard library over the bus, restore it, compare it
	$(BIN)/python -m scripts.demo

test: install  ## the whole test suite, but for what takes minutes; WORKERS=0 for one test at a time
	$(BIN)/pytest -m 'not long' -n $(WORKERS) --dist worksteal

test-all: test  ## the whole test suite
	$(BIN)/pytest -m long

lint: install  ## style, types, and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict snappy
	$(BIN)/lint-imports --no-cache

format: install  ## bring the code into ruff's shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

services:  ## install what pip cannot bring: two versions of restic, Node.js, file system tools
	scripts/services.sh

kubernetes:  ## build the API server that tests of the plug-in kubernetes want: some ten minutes
	scripts/kube-apiserver.sh

schemas: install  ## write schemas/ from the structs
	$(BIN)/python -m snappy.schemas

bench: install  ## Snappy beside restic and borg, hours; SCALE=0.05 PAIRS=1 NAMES="tree noise" make it a quick try
	$(BIN)/python -m bench $(NAMES) $(if $(SCALE),--scale $(SCALE)) $(if $(PAIRS),--pairs $(PAIRS))
	$(BIN)/python -m bench.jobs

soak: install  ## random faults against random jobs, 300 of them or MINUTES=n; SEED=n; REPORT=file.md
	$(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(REPORT),--report $(REPORT))

clean:  ## remove caches and what was built
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean  ## remove .venv and .services as well
	rm -rf $(VENV) .services
