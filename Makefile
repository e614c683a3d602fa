# Four commands; each makes .venv when it is missing or when the pins changed.
PYTHON ?= python3
PY := .venv/bin/python
export PYTHONHASHSEED := 0

.PHONY: demo test lint bench

demo: .venv/ready
	$(PY) -m medssl.cli demo --out demo

# Two processes of one thread each: faster on two cores than one process of two threads.
test: .venv/ready
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile $(ARGS)

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
