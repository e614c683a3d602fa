# Each command makes .venv when it is missing or when the pins changed.
PYTHON ?= python3
PY := .venv/bin/python
export PYTHONHASHSEED := 0

.PHONY: demo test test-fast test-frontend lint lint-frontend bench reference docs soak
# Checks types and shapes of every call while tests run; an int may stand for a float, as in PEP 484.
SHAPES := '--jaxtyping-packages=medssl,beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'

demo: .venv/runs
	$(PY) -m medssl.cli demo --out demo

# Two processes of one thread each: faster on two cores than one process of two threads.
test: .venv/ready test-frontend
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(SHAPES) $(ARGS)

# A part, quickly: make test-fast ARGS=tests/nn
test-fast: .venv/ready
	OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not slow and not browser' $(ARGS)

# The modules of the viewer that need no DOM.
test-frontend:
	@if command -v node >/dev/null; then node --test $(wildcard tests/viewer/frontend/*.test.js); \
	else echo "test-frontend: skipped, there is no node (apt-get install nodejs npm)"; fi

lint: .venv/ready lint-frontend
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# Formatting, eslint and types of the viewer's modules.
lint-frontend:
	@if ! command -v npm >/dev/null; then echo "lint-frontend: skipped, there is no npm (apt-get install nodejs npm)"; \
	elif $(MAKE) --silent node_modules/ready; then npm run --silent lint; \
	else echo "lint-frontend: skipped, the packages of package-lock.json cannot be installed"; fi

node_modules/ready: package.json package-lock.json .npmrc
	npm ci --silent
	touch $@

# The pages and help texts that follow from the code.
reference: .venv/ready
	COLUMNS=100 $(PY) -m docs.write_reference

# The site in site/: every link checked, no request to another host.
docs: .venv/ready
	$(PY) -m mkdocs build --strict --quiet

bench: .venv/ready
	$(PY) -m benchmarks $(ARGS)

# 100 kills at random moments over ingest, pretrain, finetune, fewshot, predict and review; SOAK_KILLS=12 for fewer.
soak: .venv/ready
	$(PY) -m benchmarks soak

INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
# On Linux without an NVIDIA driver, torch comes without CUDA; TORCH_INDEX= takes that of the package index.
CPU_INDEX := https://download.pytorch.org/whl/cpu
TORCH_INDEX ?= $(if $(filter Linux,$(shell uname)),$(if $(shell command -v nvidia-smi),,$(CPU_INDEX)))

# What the demo and a user need.
.venv/runs: pyproject.toml constraints.txt
	@echo "Setting up .venv with pip, which takes minutes and prints nothing meanwhile."
	test -x $(PY) || $(PYTHON) -m venv .venv
	test -z '$(TORCH_INDEX)' || $(INSTALL) --retries 0 --index-url '$(TORCH_INDEX)' torch \
		|| echo "$(TORCH_INDEX) has no torch for this machine: the one of the package index is taken, which may hold CUDA"
	$(INSTALL) -e '.[train,app]'
	touch $@

# The same, and what tests, checks and documentation need.
.venv/ready: .venv/runs
	$(INSTALL) -e '.[train,app,cluster,docs,export,mlflow,nninteractive,onnx,pacs,reports,test,wandb]'
	touch $@
