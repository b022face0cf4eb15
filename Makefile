# Everything here works in .venv and installs nothing outside it but Debian packages for Qt and
# OpenGL, where they are missing and apt-get may be used (see scripts/setup.sh).

PYTHON_IN_VENV := .venv/bin/python
INSTALLED := .venv/.installed

.PHONY: help demo test lint docs gpu clean

help:
	@echo "make demo    install, restore the sample images into demo/, open napari if there is a display"
	@echo "make test    install and run all tests; ARGS='-k tiles' passes options to pytest"
	@echo "make lint    ruff, mypy and the rules of imports"
	@echo "make docs    build the documentation into site/, strictly"
	@echo "make gpu     check and measure a graphics card with the Python that has its torch; ARGS='--minutes 4'"
	@echo "make clean   remove .venv, demo/ and what builds leave behind"

demo: $(INSTALLED)
	$(PYTHON_IN_VENV) scripts/demo.py

# One worker for each core; some 1.5 GB of memory each. ARGS='-n 0' runs them in one process.
test: $(INSTALLED)
	scripts/with_display.sh $(PYTHON_IN_VENV) -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(PYTHON_IN_VENV) -m ruff check
	$(PYTHON_IN_VENV) -m ruff format --check
	$(PYTHON_IN_VENV) -m mypy
	.venv/bin/lint-imports --no-logo

docs: $(INSTALLED)
	$(PYTHON_IN_VENV) -m pip install --quiet --constraint constraints.txt --group docs
	$(PYTHON_IN_VENV) -m mkdocs build --strict

# Not in .venv, whose torch is for processors: PYTHON needs torch and numpy, and no network.
PYTHON ?= python3
gpu:
	PYTHONPATH=src $(PYTHON) benchmarks/gpu.py $(ARGS)

clean:
	rm -rf .venv demo site build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests scripts examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml constraints.txt scripts/setup.sh
	scripts/setup.sh
	@touch $@
