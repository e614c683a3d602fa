# Five commands; each makes .venv when it is missing or when the pins changed.
PYTHON ?= python3
PY := .venv/bin/python
export PYTHONHASHSEED := 0

.PHONY: demo test test-fast lint bench
# Checks types and shapes of every call while tests run; an int may stand for a float, as in PEP 484.
SHAPES := '--jaxtyping-packages=medssl,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'

demo: .venv/ready
	$(PY) -m medssl.cli demo --out demo

# Two processes of one thread each: faster on two cores than one process of two threads.
test: .venv/ready
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(SHAPES) $(ARGS)

# A part, quickly: make test-fast ARGS=tests/nn
test-fast: .venv/ready
	OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not slow and not browser' $(ARGS)

lint: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: .venv/ready
	$(PY) -m benchmarks $(ARGS)

.venv/ready: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[app,cluster,test]'
	touch $@
