# Everything one does here. The README needs `make serve` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# By version and before everything else: a bare `torch` brings CUDA along, gigabytes that a CPU has no
# use for. Where the default index has only CUDA builds, name another: make TORCH="torch --index-url ..."
TORCH ?= torch==2.13.0

.PHONY: install protos format check test-fast test serve aot gpu-wheels gpu-site gpu-check gpu-tune

install: $(STAMP)

$(VENV):
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "octavo needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $@

# A torch that is in the environment already stays, such as one built for its GPU.
$(STAMP): pyproject.toml | $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet $(TORCH)
	PYTHONWARNINGS="ignore:Editable installation" $(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# Generated code is committed; a test compares it with its source.
protos: install
	$(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=. --pyi_out=. --grpc_python_out=. protos/octavo/v1/*.proto

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --num-workers $$(getconf _NPROCESSORS_ONLN)
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(BIN)/python tests/file_sizes.py

# Tests start hundreds of Pythons: each would compile again all that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Several processes that compute share the cores here. OpenMP's threads, which torch's own operations
# run on, would wait for each other spinning, on the cores that they wait for.
test-fast test: export OMP_WAIT_POLICY := passive

# Without a GPU these run in Triton's interpreter, in a run of their own (tests/interpreted.py).
INTERPRETED_FOLDERS := $(wildcard tests/benchmarks/gpu tests/kernels/gpu tests/worker/gpu)

# What is in these is slow, all of it; to import what it wants takes seconds.
SLOW_FOLDERS := tests/clients tests/end_to_end

# Half of the time a test waits, for another process or a clock: three for two cores.
test-fast: install
	$(BIN)/pytest -n $$((($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2)) -m "not slow and not gpu" \
		$(addprefix --ignore=,$(SLOW_FOLDERS))

# Those that take longest begin first, so that none is left alone at the end.
LONGEST_FILES := $(addprefix tests/,benchmarks/test_aot_table.py end_to_end/test_exactness.py \
	end_to_end/test_hung_workers.py worker/test_demo_model.py docs/test_commands.py \
	end_to_end/test_openapi.py worker/test_sampling_with_scheduler.py end_to_end/test_restarts.py)
# No other file is imported to find that nothing in it is slow.
SLOW_FILES = $(LONGEST_FILES) $(filter-out $(LONGEST_FILES),$(sort \
	$(shell grep -rl --include='test_*.py' 'mark\.slow' tests)))

# The slow ones start whole clusters, and wait for them: three at a time, and those of one file
# share theirs.
test: test-fast
	$(BIN)/pytest -n $$(getconf _NPROCESSORS_ONLN) $(INTERPRETED_FOLDERS)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder -m "slow and not gpu" \
		--durations=15 $(SLOW_FILES)

serve: install
	$(BIN)/octavo serve demo

# For an A100, an RTX 4090, an H100 or H200, a B200, an RTX 5090; what was compiled before is kept.
aot: export TRITON_CACHE_DIR := $(CURDIR)/build/triton
aot: install
	$(BIN)/python -m benchmarks.aot_table 80 89 90 100 120

# What a machine with a GPU and no network lacks, to be carried there.
WHEELS := .wheels
gpu-wheels: install
	$(BIN)/python -m benchmarks.gpu_wheels $(WHEELS)

# With the environment, or where there is none with a Python that has torch and what was carried.
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
GPU_SITE := build/gpu-site
gpu-check gpu-tune: export PYTHONPATH := $(CURDIR)/$(GPU_SITE):$(CURDIR)
gpu-site:
	@test -x $(BIN)/python || test ! -d $(WHEELS) || $(GPU_PYTHON) -m pip install --quiet \
		--no-index --no-deps --upgrade --target $(GPU_SITE) $(WHEELS)/*.whl

gpu-check: gpu-site
	@$(GPU_PYTHON) -m benchmarks.gpu_check

# What one of them finds is worth committing, whatever becomes of the other.
gpu-tune: gpu-site
	@$(GPU_PYTHON) -m benchmarks.tune_attention; attention=$$?; \
		$(GPU_PYTHON) -m benchmarks.tune_linear && exit $$attention
