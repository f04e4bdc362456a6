# make sweep   measure this machine           make test    run the tests
# make check   style, types, import contracts make format  mend the style
# make test-hosts   the commands and faults of a cluster, over hosts out of namespaces (root)

VENV ?= .venv
PYTHON ?= python3
MATRIX ?= jobs/matrices/local.toml
# Where torch comes from; empty: PyPI, whose Linux build is for a current NVIDIA GPU. Others:
#   small build without CUDA:  TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   P100, P40, V100:           TORCH_INDEX=https://download.pytorch.org/whl/cu126
TORCH_INDEX ?=
PYPI = https://pypi.org/simple

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: sweep test test-hosts check format clean

sweep: $(VENV)/.ready
	$(BIN)/tensorgap sweep $(MATRIX)

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-hosts: $(VENV)/.ready-hosts
	$(BIN)/python -m pytest -rs tests/hosts

check: $(VENV)/.ready-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.ready-check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV)

# Torch first and by itself: another package's looser wish would bring another build of it.
$(VENV)/.ready: setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "tensorgap needs Python 3.11"'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes the first time"
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX) --extra-index-url $(PYPI)) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/.ready-hosts: $(VENV)/.ready
	$(PIP) --editable '.[test,cluster]'
	@touch $@

$(VENV)/.ready-check: $(VENV)/.ready
	$(PIP) --editable '.[check]'
	@touch $@
