# headgate: set up, run, test, build. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup run lint test test-all long bench chaos audit build sign lock jars clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(READY) ## a virtual environment in .venv, Java if there is none, Delta's jars

# What pip is set to take packages from, uv takes as well: a mirror's address stands in no file of this repository. `uv pip`
# asks the index for what uv.lock names and verifies its hashes; `uv sync` would fetch from the addresses in uv.lock alone.
define FROM_PIP
settings=$$($(BIN)/python -m pip config list); \
of() { for section in :env: install global; do echo "$$settings" | sed -n "s/^$$section[.]$$1='\(.*\)'$$/\1/p"; done | head -n 1; }; \
index=$$(of index-url); cert=$$(of cert); \
if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
if [ -n "$$cert" ]; then export SSL_CERT_FILE="$${SSL_CERT_FILE:-$$cert}"; fi; \
export VIRTUAL_ENV=$(CURDIR)/$(VENV) UV_PYTHON=$(CURDIR)/$(BIN)/python UV_PYTHON_DOWNLOADS=never
endef
EXPORT := $(BIN)/uv export --quiet --frozen --no-header --no-emit-project --output-file
UV := $(BIN)/uv pip install --quiet --no-build-isolation
VERIFIED := $(UV) --no-deps --require-hashes -r
EXTRAS := --extra demo --extra images --extra lineage --extra models --extra plots --extra polars --extra tokens --extra tracing

$(READY): uv.lock requirements/uv.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' \
	  || { echo "headgate needs Python 3.11 to 3.14; name one: make PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	@set -e; $(FROM_PIP); \
	  $(EXPORT) $(VENV)/build.txt --only-group build; $(VERIFIED) $(VENV)/build.txt; \
	  $(EXPORT) $(VENV)/run.txt $(EXTRAS); $(VERIFIED) $(VENV)/run.txt; \
	  $(UV) --no-deps --editable .; \
	  if ! $(BIN)/python -c 'from headgate.jobs.spark.java import java_home; java_home()' 2>/dev/null; then \
	    $(EXPORT) $(VENV)/java.txt $(EXTRAS) --extra java; $(VERIFIED) $(VENV)/java.txt; fi
	$(BIN)/headgate jars > /dev/null
	@touch $(READY)

run: setup ## the main job: a real year of flights into landing/, built, gated and released in lake/
	$(BIN)/headgate sample flights --into landing
	$(BIN)/headgate run conf/flights.yaml

lint: setup ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint ## lint and tests, as CI runs them
	$(PYTEST)

test-all: lint ## lint and all tests but those of `make long`
	$(PYTEST) -m "not long"

long: setup ## the tests of several minutes: a class archive, executors of their own, kills at random moments
	$(BIN)/python -m pytest -m long

bench: setup ## the longer measurements of tests/benchmarks
	$(BIN)/python -m tests.benchmarks

chaos: setup ## kill hundreds of runs at phase ends and random moments (KILLS=200 SEED=1)
	$(BIN)/python -m tests.chaos --kills $(or $(KILLS),200) --seed $(or $(SEED),1)

audit: setup ## known vulnerabilities and licences of what is locked (needs the registry's advisories)
	test -x $(VENV)-audit/bin/python || $(PYTHON) -m venv $(VENV)-audit
	@set -e; $(FROM_PIP); export VIRTUAL_ENV=$(CURDIR)/$(VENV)-audit UV_PYTHON=$(CURDIR)/$(VENV)-audit/bin/python; \
	  $(EXPORT) $(VENV)-audit/audit.txt --only-group audit; $(VERIFIED) $(VENV)-audit/audit.txt
	$(EXPORT) $(VENV)-audit/locked.txt --all-extras
	$(VENV)-audit/bin/pip-audit --requirement $(VENV)-audit/locked.txt --require-hashes --disable-pip
	$(VENV)-audit/bin/pip-licenses --python $(BIN)/python --partial-match --fail-on "GPL;AGPL;BUSL;Business Source" \
	  --format=plain --order=license

DIST := dist
build: setup ## dist/: the wheel, the same bytes as headgate.zip for spark-submit, what it is made of (SBOM), checksums
	rm -rf $(DIST)
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(DIST) .
	cp $(DIST)/headgate-*.whl $(DIST)/headgate.zip
	$(BIN)/python deploy/sbom.py $(DIST)
	cd $(DIST) && sha256sum headgate* > SHA256SUMS
	@ls $(DIST)

sign: ## sign dist/SHA256SUMS with your SSH key (KEY=~/.ssh/id_ed25519); docs/security.md says how to verify
	rm -f $(DIST)/SHA256SUMS.sig
	ssh-keygen -Y sign -n headgate -f $(or $(KEY),~/.ssh/id_ed25519) $(DIST)/SHA256SUMS

lock: setup ## resolve uv.lock anew, within the ranges of pyproject.toml (UPGRADE=--upgrade for newer versions)
	@set -e; $(FROM_PIP); $(BIN)/uv lock $(UPGRADE)
	$(EXPORT) requirements/uv.txt --only-group uv

jars: ## the folder that HEADGATE_JARS may name on a closed network: deploy/jars/lib (needs Maven)
	mvn --quiet --file deploy/jars/pom.xml dependency:copy-dependencies -DoutputDirectory=lib
	cd deploy/jars/lib && sha256sum --check ../SHA256SUMS

clean: ## what make made, but not landing/ and lake/
	rm -rf $(VENV) dist deploy/jars/lib
