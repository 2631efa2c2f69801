# One line per target: `make help`. Everything is resumable; a second run repeats nothing that is done.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

TIER ?= cpu
MINUTES ?= 10
PYTHON ?= python3
VENV ?= .venv
CORES := $(shell nproc 2>/dev/null || echo 2)
WORKERS ?= $(shell n=$(CORES); echo $$(( n < 4 ? n : 4 )))
# Named by what it was installed from: a changed requirement is installed, an unchanged one costs nothing.
INSTALLED := $(VENV)/.installed-$(shell cat constraints.txt settings.ini setup.py pyproject.toml | sha256sum | cut -c1-12)
IN_VENV := $(abspath $(VENV))/bin/python

export PATH := $(abspath $(VENV))/bin:$(PATH)
export PYTHONUNBUFFERED := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help paper test check docs lib run tables pdf data venv system clean

help: ## List the targets
	@echo "make TARGET [TIER=cpu|full] [MINUTES=10 | ALL=1]"
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | awk -F'\t' '{printf "  %-8s %s\n", $$1, $$2}'

ifdef ALL
paper: venv data run tables pdf ## The paper from nothing: install, fetch, tables, figures, PDF, and a sample of its rows computed again (MINUTES=10), or ALL=1 of them
	@$(IN_VENV) tools/paper.py compare --tier $(TIER)
else
paper: venv data tables pdf
	@$(IN_VENV) tools/paper.py sample --tier $(TIER) --minutes $(MINUTES)
endif

test: venv data ## Every notebook and every test, after installing and fetching
	@bash tools/system.sh chromium
	@# a process per notebook, so that none inherits what another one set
	find nbs -name '[!._]*.ipynb' -not -path '*/.*' -print0 | sort -z | OMP_NUM_THREADS=1 xargs -0 -n 1 -P $(WORKERS) nbdev_test --n_workers 0 --timing --path
	pytest -q -rs

docs: venv ## The documentation site in _docs/
	@bash tools/system.sh npm
	@$(IN_VENV) tools/docs.py site

check: venv ## Format, lint, types, export in sync, and the tests that need no data (two minutes)
	ruff format --check nbs tests tools data_scripts
	ruff check nbs tests tools data_scripts
	nbdev_export
	git diff --exit-code --stat -- alignmerge_nb
	mypy
	@$(IN_VENV) tools/measures.py
	pytest -q tests/test_house.py tests/test_determined.py tests/test_report.py tests/test_runs.py tests/test_paper.py tests/test_history.py tests/test_pictures.py tests/test_couplings.py

lib: venv ## Format the sources, export the library, clean the notebooks, regenerate README.md
	ruff format -q nbs tests tools data_scripts
	nbdev_export
	nbdev_clean
	@$(IN_VENV) tools/docs.py readme

run: venv data ## Only the experiments of TIER; rows that exist are kept
	$(IN_VENV) tools/paper.py run --tier $(TIER)

tables: venv ## Tables, figures and the paper's numbers from the rows of TIER
	$(IN_VENV) tools/paper.py tables --tier $(TIER)

pdf: venv ## paper/main.pdf with the tables and figures of TIER
	@bash tools/system.sh latex
	$(IN_VENV) tools/paper.py pdf --tier $(TIER)

data: venv ## Fetch the embedded weights and data sets into data/
	@bash tools/system.sh rsvg npm
	$(IN_VENV) data_scripts/fetch_all.py

venv: $(INSTALLED) ## The virtual environment, under the pins of constraints.txt

$(INSTALLED):
	@$(PYTHON) -c 'import sys; sys.exit("AlignMerge needs Python 3.11 or newer: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(IN_VENV) || $(PYTHON) -m venv $(VENV)
	$(IN_VENV) -m pip install --quiet --no-compile -c constraints.txt -e '.[dev,docs]'
	@rm -f $(VENV)/.installed-*; touch $@

system: ## The programs that pip does not bring: LaTeX, rsvg-convert, npm, Chromium (apt, as root)
	@bash tools/system.sh latex rsvg npm chromium

clean: ## Remove what was built (not data/, rows, or the virtual environment)
	rm -rf _docs _proc build dist paper/build .mypy_cache .pytest_cache .ruff_cache
	find alignmerge_nb data_scripts nbs tests tools -name __pycache__ -prune -exec rm -rf {} +
