# `make tour` and `make test` are all a newcomer needs; each sets itself up first.
.DELETE_ON_ERROR:
PYTHON ?= python3
BIN := .venv/bin
# What users need, and all that developers need besides.
TOUR_STAMP := .venv/.set-up-tour
STAMP := .venv/.set-up

.PHONY: help install setup tour test soak test-sdks check bench clean

help:
	@echo "make tour    see Cloche work: data, training, an endpoint, an answer, a report"
	@echo "make install link the command cloche into ~/.local/bin (or BINDIR=DIR)"
	@echo "make test    run every check and test"
	@echo "make soak    run the long checks whole, of which make test runs a sample"
	@echo "make test-sdks  run what three generations of the SageMaker SDK do (makes .venv-sdk)"
	@echo "make setup   create .venv with the development tools (make test does it, once)"
	@echo "make check   format, types, lint, import and size rules, docs in step"
	@echo "make bench   measure"

setup: $(STAMP)

# Updated when what it holds is declared differently.
$(STAMP): pyproject.toml scripts/setup scripts/install_packages.py
	@PYTHON="$(PYTHON)" scripts/setup pytorch,tour,dev
	@touch $(TOUR_STAMP) $@

$(TOUR_STAMP): pyproject.toml scripts/setup scripts/install_packages.py
	@PYTHON="$(PYTHON)" scripts/setup pytorch,tour
	@touch $@

# The command, for your shell; your own Python and its packages stay yours.
install: $(TOUR_STAMP)
	@BINDIR="$(BINDIR)" scripts/install

# TOUR="--data DIR" passes options on.
tour: $(TOUR_STAMP)
	@$(BIN)/cloche tour $(TOUR)

test: setup
	@scripts/setup-system
	@scripts/test

# The tests that use the fixture `extent`, to their full extent. SOAK="-k kills" chooses among them.
soak: setup
	@scripts/soak $(SOAK)

# SageMaker SDKs 2.70.0 and 3.x beside the 2.x that .venv has; each gets a venv of its own.
test-sdks: setup
	@scripts/test-sdks

check: setup
	@scripts/check

bench: setup
	@$(BIN)/python -m bench

clean:
	rm -rf .venv .venv-sdk .tour build cloche.egg-info .pytest_cache .mypy_cache .ruff_cache
