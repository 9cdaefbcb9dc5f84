# Two commands do everything from a fresh clone: `make demo` and `make test`. Needs Python 3.11+ and a C++20 compiler.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
KERNEL_SOURCES := $(shell find csrc -type f) setup.py
# One thread unless told otherwise: two busy threads on shared cores can be many times slower than one.
export OMP_NUM_THREADS ?= 1
export MTL_EXT_EMULATION = 1

.PHONY: demo test bench stress lint gpu-check cmake clean

demo: $(VENV)/built
	$(BIN)/mtl-ext demo

# A missing kernel fails here instead of being skipped.
test: $(VENV)/built
	MTL_EXT_REQUIRE_KERNELS=1 $(BIN)/python -m pytest python_tests $(PYTEST_ARGS)

# All benchmarks, or `make bench BENCH_ARGS=--quick` to see that they work.
bench: $(VENV)/built
	$(BIN)/python -m bench $(BENCH_ARGS)

# Thousands of random matrices per solver, against independent solvers.
stress: $(VENV)/built
	$(BIN)/python -m bench.stress

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc python_tests bench -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run -Werror

# On a machine with a GPU: every operator test and the gram benchmark on the device.
gpu-check: $(VENV)/built
	$(BIN)/python -m bench.gpu_check

# The same library by CMake.
cmake: $(VENV)/installed
	cmake -S . -B build/cmake -DPython_EXECUTABLE=$(abspath $(BIN))/python
	cmake --build build/cmake -j 2

clean:
	rm -rf $(VENV) build mtl_ext/*.so *.egg-info

$(VENV)/installed: requirements/dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mtl_ext needs Python 3.11 or later")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -r requirements/dev.txt
	touch $@

# The first build goes through pip, later ones compile what has changed.
$(VENV)/built: $(VENV)/installed $(KERNEL_SOURCES)
	if $(BIN)/pip show -q mtl_ext 2>/dev/null; then $(BIN)/python setup.py -q build_ext --inplace; \
	else $(BIN)/pip install -q --no-build-isolation --no-deps -e .; fi
	touch $@
