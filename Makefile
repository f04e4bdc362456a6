# make sweep   measure this machine           make test    run the tests
# make check   style, types, import contracts make format  mend the style
# make test-hosts   the commands and faults of a cluster, over hosts out of namespaces (root)
# make test-browser the pages of reports, in chromium
# make test-cuda    the CUDA path, on modelled GPUs below a CUDA build of torch (3 GB to load)

VENV ?= .venv
PYTHON ?= python3
MATRIX ?= jobs/matrices/local.toml
# Where torch comes from; empty: PyPI, whose Linux build is for a current NVIDIA GPU. Others:
#   small build without CUDA:  TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   P100, P40, V100:           TORCH_INDEX=https://download.pytorch.org/whl/cu126
TORCH_INDEX ?=
# Its own environment, with the torch that the modelled GPU is built and tested against.
VENV_CUDA ?= .venv-cuda
TORCH_CUDA ?= torch==2.11.0

BIN = $(VENV)/bin
PIP_INSTALL = -m pip --disable-pip-version-check install --quiet --constraint
PIP = $(BIN)/python $(PIP_INSTALL) constraints.txt
# Of these gigabytes only what is imported is compiled, when it first is.
PIP_CUDA = $(VENV_CUDA)/bin/python $(PIP_INSTALL) $(VENV_CUDA)/constraints.txt --no-compile

# Some images set it; then each of the many processes of a test compiles all that it imports again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: sweep test test-hosts test-cuda test-browser check format clean

sweep: $(VENV)/.ready
	$(BIN)/tensorgap sweep $(MATRIX)

test: $(VENV)/.ready-test
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

test-hosts: $(VENV)/.ready-hosts
	$(BIN)/python -m pytest -rs tests/hosts

test-browser: $(VENV)/.ready-test
	$(BIN)/python -m pytest -rs tests/browser

test-cuda: $(VENV_CUDA)/.ready
	$(VENV_CUDA)/bin/python -m pytest --numprocesses 4 --dist loadfile tests/cuda

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
	rm -rf $(VENV) $(VENV_CUDA)

# Torch first and by itself: another package's looser wish would bring another build of it.
$(VENV)/.ready: setup.cfg constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "tensorgap needs Python 3.11"'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes the first time"
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --editable '.[report]'
	@touch $@

$(VENV)/.ready-test: $(VENV)/.ready
	$(PIP) --editable '.[report,test]'
	@touch $@

$(VENV)/.ready-hosts: $(VENV)/.ready
	$(PIP) --editable '.[test,cluster]'
	@touch $@

$(VENV)/.ready-check: $(VENV)/.ready
	$(PIP) --editable '.[check]'
	@touch $@

$(VENV_CUDA)/.ready: setup.cfg constraints.txt
	$(PYTHON) -m venv $(VENV_CUDA)
	@echo "installing a CUDA build of torch into $(VENV_CUDA): 3 GB, some minutes the first time"
	grep -v '^torch==' constraints.txt > $(VENV_CUDA)/constraints.txt
	$(PIP_CUDA) '$(TORCH_CUDA)'
	$(PIP_CUDA) --editable '.[test]'
	@touch $@
