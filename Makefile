# make demo, make test: each sets up .venv first. Needs Python 3.11 or newer, with its headers.

PYTHON ?= python3
# https://download.pytorch.org/whl/cpu here saves gigabytes on Linux without a GPU.
TORCH_INDEX ?=
# Steps of each network in the demo: about two minutes a network on 2 cores.
DEMO_STEPS ?= 80

# OpenMP's threads sleep while they wait, so that processes can share cores (bsbimamba/openmp.py).
export OMP_WAIT_POLICY ?= passive

BIN := .venv/bin
DEMO := runs/demo
DEMO_NETWORKS := baseline abl1 abl2 abl3
SHIPPED := models/abl3 models/bsrnn_bi

.PHONY: demo test test-slow test-gpu bench bench-gpu check format clean
.DELETE_ON_ERROR:

# The shipped models must beat the noisy recordings; networks of a minute's training need not.
demo: .venv/runtime
	$(BIN)/python evaluate.py $(SHIPPED) --data data/sample --out $(DEMO)/shipped --require-gain
	for folder in $(DEMO_NETWORKS); do \
		(cd $$folder && ../$(BIN)/python train.py --sample --fresh --run ../$(DEMO)/$$folder \
			--batch-size 2 --crop 1 --steps $(DEMO_STEPS) \
			--optim.warmup-steps 10 --data.validation-files 16) || exit 1; \
	done
	$(BIN)/python evaluate.py $(SHIPPED) $(DEMO_NETWORKS:%=$(DEMO)/%) --data data/sample \
		--out $(DEMO)/comparison

# Side by side, as many tests wait for a process or for one core.
TEST_WORKERS ?= 2
test: check
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_WORKERS) --dist worksteal

test-slow: .venv/development
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile search

test-gpu: .venv/development
	$(BIN)/python -m pytest -m gpu

# The scan against the best others and the loop that defines it.
bench: .venv/development
	$(BIN)/python -m benchmarks.scan

# On a GPU, at most six minutes: writes docs/gpu.md.
bench-gpu: .venv/development
	$(BIN)/python -m benchmarks.gpu

check: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import os, sys, sysconfig as s; \
		sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' || \
		{ echo "pesq is compiled against Python's headers (Python.h), which are not here:"; \
		echo "apt-get install python3-dev on Debian and Ubuntu, python3-devel on Fedora"; exit 1; }
	$(PYTHON) -m venv .venv

# pesq is published as source only. Where there is no C compiler, one comes as a wheel.
.venv/runtime: requirements.txt | .venv/bin/python
	if [ -n "$(TORCH_INDEX)" ]; then \
		$(BIN)/pip install --index-url $(TORCH_INDEX) "$$(grep '^torch==' requirements.txt)"; fi
	if command -v cc >/dev/null || command -v gcc >/dev/null; then \
		$(BIN)/pip install -r requirements.txt; \
	else \
		$(BIN)/pip install ziglang && \
		zig=$$($(BIN)/python -c 'import ziglang; print(ziglang.__path__[0] + "/zig")') && \
		CC="$$zig cc" $(BIN)/pip install -r requirements.txt; fi
	touch $@

.venv/development: pyproject.toml .venv/runtime
	$(BIN)/pip install -e ".[dev]"
	touch $@
