# Every target sets up what it needs: a virtual environment with pinned packages, built once and again when a pin changes.
# It takes Python 3.11 or newer and git; with another name for it: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
VENV_TL4 := .venv-tl4
PINS := requirements/torch.txt requirements/common.txt requirements/tools.txt pyproject.toml
# A process for every core, each of about 1 GB.
PYTEST := -m pytest -n auto --maxprocesses 16
# The tests of what TransformerLens 4 can run.
TL4_TESTS := tests

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads that wait without spinning: on a machine that is busy with something else, small operations stay quick.
export OMP_WAIT_POLICY ?= passive
# pyright comes with pip and needs neither node nor a network; this keeps it from looking for a newer one.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help demo test test-tl4 check docs format clean

help:
	@echo "make demo      find two circuits in the bundled model, with a page to explore each in"
	@echo "make test      run the tests"
	@echo "make test-tl4  run the component tests with TransformerLens 4"
	@echo "make check     run every static check"
	@echo "make docs      build the documentation site into site/"
	@echo "make format    format the code"
	@echo "make clean     remove the virtual environments, the site and caches"

demo: $(VENV)/installed
	$(VENV)/bin/sparse-circuits demo

test: $(VENV)/installed
	$(VENV)/bin/python $(PYTEST)

test-tl4: $(VENV_TL4)/installed
	$(VENV_TL4)/bin/python $(PYTEST) $(TL4_TESTS)

check: $(VENV)/installed
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

# Without a single warning, and without a network; site/index.html opens from disk.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

format: $(VENV)/installed
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

clean:
	rm -rf $(VENV) $(VENV_TL4) site .pytest_cache .ruff_cache

# $(1): the environment's folder, $(2): the file of its pins. The stamp is written last, so a set-up that was cut short is
# made again from the start.
define set-up
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "Setting up $(1) (a few minutes, once)"
	@$(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python -m pip install --quiet -r requirements/torch.txt
	@$(1)/bin/python -m pip install --quiet -r $(2) -r requirements/tools.txt
	@$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
endef

$(VENV)/installed: requirements/main.txt $(PINS)
	$(call set-up,$(VENV),$<)

$(VENV_TL4)/installed: requirements/tl4.txt $(PINS)
	$(call set-up,$(VENV_TL4),$<)
