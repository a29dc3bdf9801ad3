# The daily habits. `make demo` and `make test` set up everything they need (see tools/setup.sh).
#
#   make demo [FIELDS=30] [DEMO="--no-window --folder DIR"]   a sample acquisition, imported and shown
#   make test [TESTS="tests/cli -k render"]                   lint, then the tests
#   make lint      what Ruff says about style and format
#   make format    let Ruff mend what it can
#   make bench [BENCH="NAME …"]                               measure
#   make clean     remove what was made here
#
#   make PYTHON=/path/to/python3.12 …                         choose the interpreter

VENV ?= .venv
FIELDS ?= 30
export PYTHON VENV

.PHONY: demo test lint format bench setup clean

demo: setup
	$(VENV)/bin/rawmosaic demo --fields $(FIELDS) $(DEMO)

test: lint
	@./tools/setup.sh tests
	$(VENV)/bin/python -m pytest $(TESTS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: setup
	$(VENV)/bin/python -m benchmarks $(BENCH)

setup:
	@./tools/setup.sh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
