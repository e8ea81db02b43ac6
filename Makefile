# make demo, make test: each sets up .venv first. Needs Python 3.11 or newer, with its headers.

PYTHON ?= python3
# https://download.pytorch.org/whl/cpu here saves gigabytes on Linux without a GPU.
TORCH_INDEX ?=
# Steps of each network in the demo, and the corpus it makes: about two minutes a network on 2 cores.
DEMO_STEPS ?= 80

# OpenMP's threads sleep while they wait, so that processes can share cores (data/openmp.py).
export OMP_WAIT_POLICY ?= passive

BIN := .venv/bin
DEMO := runs/demo
RESULTS := .cache/bench
DEMO_NETWORKS := baseline abl1 abl2 abl3

.PHONY: demo test test-slow test-gpu bench bench-gpu bench-gpu-tune bench-gpu-build check format clean
.DELETE_ON_ERROR:

demo: .venv/runtime
	$(BIN)/python -m data.synthesise
	for folder in $(DEMO_NETWORKS); do \
		(cd $$folder && ../$(BIN)/python train.py --synthetic --fresh --run ../$(DEMO)/$$folder \
			--recipe plain --batch-size 2 --crop 1 --steps $(DEMO_STEPS) \
			--set optim.learning_rate=1e-3 optim.warmup_steps=10) || exit 1; \
	done
	$(BIN)/python evaluate.py $(DEMO_NETWORKS:%=$(DEMO)/%) --data data/synthetic \
		--out $(DEMO)/comparison --require-gain

# Side by side, as many tests wait for a process or for one core.
TEST_WORKERS ?= 2
test: check
	$(BIN)/python -m pytest -m "not slow" -n $(TEST_WORKERS) --dist worksteal

test-slow: .venv/development
	$(BIN)/python -m pytest -m slow
	$(BIN)/python -m pytest -m hypothesis --hypothesis-profile search

test-gpu: .venv/development
	$(BIN)/python -m pytest -m gpu

# The scan against the best others, with the sequential loop, a training step of every network, what
# PESQ labels cost, how cost grows with length, what the design choices save, how fast files are scored
# and training examples come, PyTorch against onnxruntime: about an hour on 2 cores.
bench: .venv/development
	$(BIN)/python -m benchmarks.scan --loop
	$(BIN)/python -m benchmarks.scan --crossovers
	$(BIN)/python -m benchmarks.convolution
	$(BIN)/python -m benchmarks.step --device cpu --rounds 3
	$(BIN)/python -m benchmarks.pesq_pool
	$(BIN)/python -m benchmarks.scaling --json docs/scaling.json --plot docs/scaling.png
	$(BIN)/python -m benchmarks.claims
	$(BIN)/python -m benchmarks.evaluation
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.export

# What a GPU gains and takes, as docs/gpu.md. One that fails leaves the others their turn, and keeps on
# the page what it found before on the same GPU. By estimate, on an H100: the scan 1 minute, a step 2,
# with labels 1, memory 2, PESQ labels 1; kernels are compiled in the first of each.
bench-gpu: .venv/development
	mkdir -p $(RESULTS)
	status=0; \
	$(BIN)/python -m benchmarks.scan --device cuda --rounds 3 --without "mambapy pscan" chunked \
		--json $(RESULTS)/scan.json || status=1; \
	$(BIN)/python -m benchmarks.step --device cuda --rounds 7 --json $(RESULTS)/step.json || status=1; \
	$(BIN)/python -m benchmarks.step --device cuda --batch 32 --only abl3 baseline --labels --rounds 2 \
		--json $(RESULTS)/step_labels.json || status=1; \
	$(BIN)/python -m benchmarks.memory_12gb --json $(RESULTS)/memory_12gb.json || status=1; \
	$(BIN)/python -m benchmarks.pesq_pool --device cuda --rounds 3 --json $(RESULTS)/pesq_pool.json || \
		status=1; \
	$(BIN)/python -m benchmarks.gpu_report --results $(RESULTS) || status=1; \
	exit $$status

# What its kernels are made of, which sizes are best, and what torch.compile and CUDA graphs do for a
# step. Most of its time goes into compiling.
bench-gpu-tune: .venv/development
	$(BIN)/python -W ignore -m benchmarks.gpu_resources
	$(BIN)/python -m benchmarks.gpu_tune
	$(BIN)/python -m benchmarks.convolution --device cuda
	$(BIN)/python -m benchmarks.step --device cuda --only abl3 baseline --compile

# mamba-ssm's CUDA kernel, to be measured by the above. Needs nvcc; up to 10 minutes.
bench-gpu-build: .venv/development
	$(BIN)/python -m benchmarks.build_mamba

check: .venv/development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/development
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
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

.venv/development: requirements-dev.txt requirements-demo.txt requirements-export.txt .venv/runtime
	$(BIN)/pip install -r requirements-dev.txt
	touch $@
