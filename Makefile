# `make train` and `make test` set up everything they need in .venv; any other target is for developers.
PYTHON ?= python3
BIN := .venv/bin
# A process a core; tests of one file share their models, so they stay together. TensorFlow keeps the memory of what it
# has compiled, so each group has processes of its own; all groups run, whatever fails.
GROUPS := 'tests/test_[a-c]*.py' 'tests/test_[d-l]*.py' 'tests/test_[m-r]*.py' 'tests/test_[s-z]*.py tfp_vae'
PYTEST := failed=; for group in $(GROUPS); do \
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $$group || failed=1; done; test -z "$$failed"
.DELETE_ON_ERROR:
.PHONY: train test test-environment check format benchmark clean

train: .venv/.package
	$(BIN)/tfp-vae train

test: .venv/.test
	$(PYTEST)

test-environment: .venv/.test

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST)

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmark: .venv/.benchmark
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/serving_speed.py

.venv/.package: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.test .venv/.dev .venv/.benchmark: .venv/.%: .venv/.package
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build *.egg-info
