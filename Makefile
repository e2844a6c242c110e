# Needs git, make and Python >= 3.10 with pip; everything else goes into .venv.
# Another Python: make test PYTHON=python3.13    One test: make test ARGS="-k settle"

PYTHON ?= python3
VENV   ?= .venv
OLDEST ?= .venv-oldest
FRAMES ?= .venv-frameworks
ARGS   ?=
PY     := $(VENV)/bin/python

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest test-frameworks check format bench soak docs dist clean

help: ## list what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.dev ## every example, against a local fake provider; no key needed
	$(PY) examples/demo.py

test: $(VENV)/.dev ## the test-suite, on the newest SDKs
	$(PY) -m pytest $(ARGS)

test-oldest: $(OLDEST)/.oldest ## the same test-suite, on the oldest SDKs supported
	$(OLDEST)/bin/python -m pytest $(ARGS)

test-frameworks: $(FRAMES)/.frameworks ## guarded clients inside LangChain, pydantic-ai and the like
	$(FRAMES)/bin/python -m pytest tests/frameworks $(ARGS)

check: $(VENV)/.dev ## format, lint, and types (quotaguard and tests/typing, by mypy and by pyright)
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

format: $(VENV)/.dev ## write the format and the safe fixes that check asks for
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

bench: $(VENV)/.dev ## ratios against the bare SDK, from one interleaved run
	$(PY) -m benchmarks $(ARGS)

soak: $(VENV)/.dev ## the long proofs: a million users, thousands of kills, faults and random runs
	QUOTAGUARD_SOAK=1 $(PY) -m pytest --timeout 3600 tests/core tests/backends $(ARGS)

docs: $(VENV)/.docs ## the documentation, in build/docs; a warning or a dead link is an error
	$(PY) -m sphinx --fail-on-warning --keep-going --quiet docs build/docs
	$(PY) tools/links.py build/docs

dist: $(VENV)/.dev ## build wheel and sdist; the demo on the wheel in a clean environment, the sdist's tests
	rm -rf dist build/clean build/sdist
	$(PY) -m build --quiet --outdir dist
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install -qq "$$(ls dist/quotaguard-*.whl)[all]"
	cd examples && ../build/clean/bin/python demo.py
	build/clean/bin/quotaguard doctor > /dev/null
	mkdir -p build/sdist && tar -xzf dist/quotaguard-*.tar.gz -C build/sdist --strip-components 1
	cd build/sdist && $(abspath $(PY)) -m pytest -q --collect-only > /dev/null
	cd build/sdist && $(abspath $(PY)) -m pytest -q tests/test_docs.py tests/test_architecture.py -k 'not code_of_a_page'

clean: ## remove what was built or cached, the virtual environments included
	rm -rf $(VENV) $(OLDEST) $(FRAMES) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call install,VENV,WHAT): --group needs pip 25.1, and a new virtual environment has Python's own.
define install
	$(1)/bin/python -m pip install -qq --upgrade 'pip>=25.1'
	$(1)/bin/python -m pip install -qq $(2)
	@touch $@
endef

# Each stamp stands for one installed set of dependencies and is remade when pyproject.toml changes.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/pip
	$(call install,$(VENV),--editable '.[all]' --group dev)

$(OLDEST)/.oldest: pyproject.toml | $(OLDEST)/bin/pip
	$(call install,$(OLDEST),--editable '.[all]' --group oldest)

$(FRAMES)/.frameworks: pyproject.toml | $(FRAMES)/bin/pip
	$(call install,$(FRAMES),--editable '.[all]' --group frameworks)

$(VENV)/.docs: $(VENV)/.dev
	$(call install,$(VENV),--group docs)

# The second way is for Debian's bare python3, which has pip but no ensurepip.
%/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	    f"quotaguard needs Python >= 3.10, and $(PYTHON) is {sys.version.split()[0]}: set PYTHON=")'
	$(PYTHON) -m venv --clear $* || { \
	    $(PYTHON) -m venv --clear --without-pip $* && $(PYTHON) -m pip --python $*/bin/python install pip; }
