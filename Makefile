PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo bench test test-slow test-browser lint format clean

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

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow -n auto --dist loadfile

test-browser: $(INSTALLED)
	@command -v chromium > /dev/null || { echo "needs Chromium: apt-get install chromium"; exit 1; }
	$(BIN)/python -m pytest -m browser

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict --follow-imports=silent tests/typed_consumer.py

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache
