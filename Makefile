# Everything a newcomer types. Each target sets up what it needs; a second run starts at once.
#   make demo    two backbones trained and compared on the sample set; ends with the report's path
#   make test    the fast tests
#   make slow    the slow ones; SLOW="FILE ..." some of them
#   make oldest  the fast tests with the oldest versions that pyproject.toml allows, in an environment of its own
#   make peers   the tests that need detectron2, in an environment of its own beside .venv
#   make lint    format, style, types, layers
#   make docs    the site, into docs/_build/html; a warning is an error
#   make bench   our speed side by side with the peers'
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# Processes that share the tests, a file at a time, each with one thread of torch.
TEST_PROCESSES ?= 2
SLOW ?= tests
OLDEST = $(shell sed -n '/^dependencies/,/^]/s/^ *"\([^">]*\)>=\([^"]*\)".*/\1==\2.*/p' pyproject.toml)

.PHONY: demo test slow oldest peers lint docs bench setup clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Vertebra needs Python 3.10 or newer, this is " + sys.version.split()[0] + "; say: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "No virtual environment could be made; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing torch, torchvision and the rest into $(VENV) (several GB, minutes, once) ..."
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -e ".[test]"
	@touch $@

demo: $(VENV)/.ready
	$(BIN)/python tools/prepare_data.py sample --data $(DEMO)/data --scenes 1200 200 --objects 2000 400
	$(BIN)/python tools/compare.py --config configs/sample/demo.yaml --data $(DEMO)/data --output $(DEMO) --resume

test: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not gpu" -n $(TEST_PROCESSES) --dist loadfile

slow: $(VENV)/.ready
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not gpu" $(SLOW) -n $(TEST_PROCESSES) --dist loadfile --durations=0

oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -q $(OLDEST:%="%") pytest pytest-xdist hypothesis "fsspec[http]"
	.venv-oldest/bin/python -m pip install --disable-pip-version-check -q --no-deps -e .
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -m "not slow and not gpu" -n $(TEST_PROCESSES) --dist loadfile

peers: $(VENV)/.ready
	VENV=$(VENV) bash tests/peers.sh

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.ready
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ".[docs]"
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/backbone.py

clean:
	rm -rf .venv-oldest .venv-peers build *.egg-info .pytest_cache .mypy_cache .ruff_cache
