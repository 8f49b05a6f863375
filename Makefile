# Howdah. `make help` lists what there is.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
UV := .venv-tools/bin/uv
# uv does not read pip's settings: wheels lying on this machine and another index are handed on.
UV_PIP_FLAGS := $(addprefix --find-links ,$(PIP_FIND_LINKS)) $(addprefix --default-index ,$(PIP_INDEX_URL))

MAIN := $(VENV)/.stamp
# Clients and peers that cannot share our environment have their own.
PYTHON_PACHYDERM := .venv-python-pachyderm/.stamp
PACHYDERM_SDK := .venv-pachyderm-sdk/.stamp
DVC := .venv-dvc/.stamp

PACKAGES := pachd mount_server label_studio_backend howdah pipelines
PROTO := $(wildcard pachd/proto/*.proto)
GENERATE = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m grpc_tools.protoc -I. \
	--python_out=$(1) --pyi_out=$(1) --grpclib_python_out=$(1) $(PROTO)

.PHONY: help
help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments ---------------------------------------------------------------------------------------------------

.PHONY: env
env: $(MAIN)  ## the environment .venv, with everything needed to run

.venv-tools/.stamp:
	@.ci/system-packages run
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Howdah needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python -m pip install --quiet uv
	@touch $@

# A lock file is installed with its dependencies looked up again: the CPU build of torch brings nothing more, while the
# registry's build finds the CUDA packages it wants.
$(MAIN): requirements.lock pyproject.toml .venv-tools/.stamp
	@test -x $(PY) || $(UV) venv --quiet --python "$(PYTHON)" $(VENV)
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet $(UV_PIP_FLAGS) -r requirements.lock
	VIRTUAL_ENV=$(VENV) $(UV) pip install --quiet --no-deps -e .
	@touch $@

define ENVIRONMENT
$(1)/.stamp: $(2) .venv-tools/.stamp
	@test -x $(1)/bin/python || $$(UV) venv --quiet --python "$$(PYTHON)" $(1)
	VIRTUAL_ENV=$(1) $$(UV) pip install --quiet $$(UV_PIP_FLAGS) -r $(2)
	@touch $$@
endef
$(eval $(call ENVIRONMENT,.venv-python-pachyderm,tests/clients/python-pachyderm.lock))
$(eval $(call ENVIRONMENT,.venv-pachyderm-sdk,tests/clients/pachyderm-sdk.lock))
$(eval $(call ENVIRONMENT,.venv-dvc,benchmarks/dvc.lock))

# --- what people run ------------------------------------------------------------------------------------------------

.PHONY: demo
demo: $(MAIN)  ## the whole loop on 1,797 digit scans; KEEP=1 leaves everything running
	$(PY) -m howdah demo $(if $(filter-out 0,$(KEEP)),--keep)

# Tests wait for servers as often as they work: one process more than there are processors.
WORKERS ?= $(shell n=$$(( $$(nproc) + 1 )); echo $$(( n > 4 ? 4 : n )))

.PHONY: test
test: check $(PYTHON_PACHYDERM) $(PACHYDERM_SDK)  ## check, then every test
	@.ci/system-packages test
	$(PY) -m pytest -n $(WORKERS) $(ARGS)

.PHONY: check
check: $(MAIN)  ## lint, types, layers, generated modules
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	@$(MAKE) --no-print-directory check-proto

.PHONY: check-proto
check-proto: $(MAIN)
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && $(call GENERATE,"$$out") && \
	for made in "$$out"/pachd/proto/*; do \
		cmp -s "$$made" "pachd/proto/$${made##*/}" || { echo "pachd/proto/$${made##*/} is stale: run make proto"; exit 1; }; \
	done && echo "Generated wire modules are current."

.PHONY: bench
bench: $(MAIN) $(DVC)  ## every row of the speed table, to benchmarks/results.json
	$(PY) -m benchmarks $(ARGS)

# --- what developers run --------------------------------------------------------------------------------------------

.PHONY: proto
proto: $(MAIN)  ## generate the wire modules again from pachd/proto/*.proto
	$(call GENERATE,.)

# Lock files name no registry; a build for one kind of processor (+cpu) is each machine's own affair. torch is resolved
# again each time, so that a CPU build at hand keeps the CUDA libraries out of the file: other machines look them up.
LOCK = $(UV) pip compile --quiet --no-header --no-emit-index-url --no-emit-find-links --python-version 3.11 $(UV_PIP_FLAGS) $(UPGRADE)
.PHONY: lock
lock: .venv-tools/.stamp  ## resolve all lock files again (UPGRADE=--upgrade takes newer versions)
	$(LOCK) --upgrade-package torch --extra label-studio --extra pipelines --extra dev -o requirements.lock pyproject.toml
	$(LOCK) -o tests/clients/python-pachyderm.lock tests/clients/python-pachyderm.in
	$(LOCK) -o tests/clients/pachyderm-sdk.lock tests/clients/pachyderm-sdk.in
	$(LOCK) -o benchmarks/dvc.lock benchmarks/dvc.in
	sed -i 's/+cpu//' requirements.lock

.PHONY: clean
clean:  ## remove environments and caches (data folders stay)
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
