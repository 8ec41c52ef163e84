# make serve   builds .venv with any Python >= 3.11 and starts the server:  make serve PORT=8080 MODEL=qwen3-4b ARGS="--log-level debug"
# make test    everything that CI runs: formatting, lint, types, unit tests, black-box tests with the real model
#
# Kept to what GNU Make 3.81 (macOS) knows.

VENV := .venv
BIN := $(VENV)/bin
CHATPORT := $(BIN)/chatport
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
NPM_TESTS := tests/npm/node_modules
INSTRUCTOR_TESTS := tests/ecosystem/instructor

# Scripts in a virtual environment name its path: a checkout that was moved gets a new one.
MADE := $(VENV)/.made-in-$(shell printf '%s' "$(CURDIR)" | cksum | cut -d' ' -f1)

# The model that the tests run is kept where `make serve` keeps it, unless told otherwise.
export CHATPORT_TEST_HOME ?= $(CHATPORT_HOME)

.PHONY: help serve test lint types unit ready model clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

serve: $(VENV)/.serve
	@exec $(CHATPORT) serve $(if $(PORT),--port $(PORT)) $(if $(MODEL),--model "$(MODEL)") $(ARGS)

# Types are checked while what the tests need is installed: that waits for the network.
test: lint
	@$(MAKE) --no-print-directory -j 2 types ready
	@$(MAKE) --no-print-directory unit

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

unit: ready
	$(BIN)/pytest -n 4 -m "not model"
	$(BIN)/pytest -m model

ready: $(VENV)/.test $(VENV)/.templates $(VENV)/.instructor model $(NPM_TESTS)/.installed

model: $(VENV)/.test
	$(if $(CHATPORT_TEST_HOME),CHATPORT_HOME="$(CHATPORT_TEST_HOME)") $(CHATPORT) models pull smollm2-135m

clean:
	rm -rf $(VENV) $(NPM_TESTS) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/.serve: $(MADE) pyproject.toml constraints.txt
	@echo "Installing Chatport into $(VENV) …"
	@$(PIP) -e '.[embedded]'
	@touch $@

$(VENV)/.test: $(MADE) pyproject.toml constraints.txt
	@echo "Installing Chatport and its test tools into $(VENV) …"
	@$(PIP) -e '.[embedded,postgres,dev,ecosystem]'
	@touch $@ $(VENV)/.serve

# Chat templates of many models, as their makers wrote them; nothing of these packages is run.
$(VENV)/.templates: $(MADE) constraints.txt
	@$(PIP) --no-deps --upgrade --target $(VENV)/templates trl axolotl
	@touch $@

# What instructor needs does not go together with constraints.txt.
$(VENV)/.instructor: $(MADE) $(INSTRUCTOR_TESTS)/requirements.txt
	@echo "Installing instructor into $(VENV)/instructor …"
	@$(BIN)/python -m venv $(VENV)/instructor
	@$(VENV)/instructor/bin/python -m pip --disable-pip-version-check install --quiet -r $(INSTRUCTOR_TESTS)/requirements.txt
	@touch $@

$(MADE):
	@for name in "$(PYTHON)" python3 python3.13 python3.12 python3.11 python3.14 python; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Chatport needs Python 3.11 or newer, and found none. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python can't make virtual environments: its venv or ensurepip module is missing. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; \
	fi; \
	"$$python" -m venv --clear $(VENV)
	@touch $@

$(NPM_TESTS)/.installed: tests/npm/package.json
	@if command -v npm >/dev/null; then \
	  npm install --prefix tests/npm --no-package-lock --no-audit --no-fund --loglevel=error && touch $@; \
	else \
	  echo "npm is not here: the tests with the official JavaScript SDK are skipped."; \
	fi
