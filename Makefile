# `make train` and `make test` set up everything they need in .venv; any other target is for developers.
PYTHON ?= python3
BIN := .venv/bin
# A process a core. Tests of one file share their models, so they stay together, and files begin in their order: those of
# few but long tests would come last.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder
.DELETE_ON_ERROR:
.PHONY: train test test-slow test-all test-environment check lint format docs package urls notebooks benchmark clean

train: .venv/.package
	$(BIN)/tfp-vae train

# What a commit needs: minutes on two cores.
test: .venv/.test
	$(PYTEST)

# The rest, in short forms: CI runs it after `make test`.
test-slow: TESTS := -m slow
# Everything in full length.
test-all: TESTS := -m 'slow or not slow' --full
# In several calls, as TensorFlow keeps what it has compiled: in one, each process comes to 12 GB.
test-slow: .venv/.test
	$(PYTEST) $(TESTS) tests/test_[a-i]*.py
	$(PYTEST) $(TESTS) tests/test_[j-z]*.py tfp_vae
test-all: .venv/.test
	$(PYTEST) $(TESTS) tests/test_[a-e]*.py
	$(PYTEST) $(TESTS) tests/test_f*.py
	$(PYTEST) $(TESTS) tests/test_[g-q]*.py
	$(PYTEST) $(TESTS) tests/test_[r-z]*.py tfp_vae

test-environment: .venv/.test

check: lint test

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The page of members, from their docstrings; then the site, in site/. A broken link is an error. Its pages open from the
# folder; search needs a server, such as `python -m http.server --directory site`.
docs: .venv/.docs
	$(BIN)/python -c "from tfp_vae.cli.catalogue import page; print(page(), end='')" > docs/members.md
	$(BIN)/python -m mkdocs build --strict

# What a release uploads, in dist/; tests/test_package.py installs it.
package: .venv/.test
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

# The project's addresses, known to who releases it: make urls URL=https://host/owner/repository
urls:
	$(if $(URL),,$(error Give URL=https://host/owner/repository))
	sed -i '/^project_urls/,/^    Changelog/d' setup.cfg
	sed -i '/^repository-code/d' CITATION.cff
	printf 'project_urls =\n    %s = $(URL)%s\n    %s = $(URL)%s\n    %s = $(URL)%s\n' \
	  Source '' Issues /issues Changelog /blob/main/CHANGELOG.md | sed -i '/^keywords/r /dev/stdin' setup.cfg
	echo 'repository-code: $(URL)' >> CITATION.cff

# The lessons of the course as notebooks, with their outputs: minutes on two cores.
notebooks: .venv/.course
	mkdir -p $@
	for lesson in examples/course/*.py; do \
	  notebook=notebooks/$$(basename $$lesson .py).ipynb; \
	  $(BIN)/jupytext --to ipynb --output $$notebook $$lesson || exit 1; \
	  $(BIN)/jupyter nbconvert --to notebook --execute --inplace $$notebook || exit 1; done

benchmark: .venv/.benchmark
	for network in mlp iwae conv2d conv1d gru; do \
	  $(BIN)/python benchmarks/training_speed.py --network $$network || exit 1; done
	$(BIN)/python benchmarks/log_prob_speed.py
	$(BIN)/python benchmarks/serving_speed.py

.venv/.package: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[cli]'
	touch $@

.venv/.test .venv/.dev .venv/.docs .venv/.course .venv/.benchmark: .venv/.%: .venv/.package
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf .venv build dist site *.egg-info
