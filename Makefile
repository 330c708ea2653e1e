PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo bench crash docs test test-gpu test-slow test-browser test-wheel lint format clean

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): some minutes, torch is large"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(INSTALLED)
	$(BIN)/gradscope record --config both.yaml --overwrite
	@echo
	@echo "Look further:"
	@echo "  $(BIN)/gradscope evaluate runs/both.zarr                   distances to real images, coverage"
	@echo "  $(BIN)/gradscope report runs/both.zarr --html both.html    what fails, where, and what to try"
	@echo "  $(BIN)/gradscope dashboard runs/both.zarr                  every gradient, in the browser"
	@echo "  $(BIN)/gradscope info runs/both.zarr                       what the store holds"
	@echo "  $(BIN)/python -c \"import xarray; print(xarray.open_zarr('runs/both.zarr'))\""

bench: $(INSTALLED)
	$(BIN)/python tests/benchmarks/run.py --json bench.json $(if $(QUICK),--quick)

# Every interruption of a tiny run, all damage of a tiny store, and random steps of two processes: hours.
crash: $(INSTALLED)
	PYTHONPATH=tests:$$PYTHONPATH $(BIN)/python -m crash.run
	PYTHONPATH=tests:$$PYTHONPATH $(BIN)/python -m damage.run
	PYTHONPATH=tests:$$PYTHONPATH $(BIN)/python -m stateful.run --steps $(or $(STEPS),100000)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

# Slow tests often wait for other processes: three of them for two cores.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow -n $$($(BIN)/python -c 'import os; print(3 * os.cpu_count() // 2)') --dist loadfile

test-browser: $(INSTALLED)
	@command -v chromium > /dev/null || { echo "needs Chromium: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pytest -m browser -n auto --dist loadfile

# The wheel, without torch and dash: what reading and analysing a store needs.
READING := numpy pandas scipy xarray zarr dask google-crc32c numcodecs pydantic
test-wheel: $(INSTALLED)
	rm -rf dist $(VENV)-wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --constraint constraints.txt $(READING)
	$(VENV)-wheel/bin/python -m pip install --quiet --no-deps dist/*.whl
	$(VENV)-wheel/bin/python -I tests/wheel/read_a_store.py tests/store/schema_1.zip

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed_consumer.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(VENV)-wheel dist build site .pytest_cache .mypy_cache .ruff_cache
