# headgate: set up, run, test, build. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup run test long bench chaos audit lint build lock jars clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(READY) ## a virtual environment in .venv, Java if there is none, Delta's jars

# --no-build-isolation: what builds the few source packages is locked as well.
$(READY): requirements/build.lock requirements/run.lock requirements/java.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "headgate needs Python 3.10 to 3.13; name one: make PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-build-isolation -r requirements/run.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'from headgate.jobs.spark.java import java_home; java_home()' 2>/dev/null \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/java.lock
	$(BIN)/headgate jars > /dev/null
	@touch $(READY)

run: setup ## the main job: a real year of flights into landing/, built, gated and released in lake/
	$(BIN)/headgate sample flights --into landing
	$(BIN)/headgate run conf/flights.yaml

test: setup ## lint and tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

long: setup ## the tests of a minute or more: a class archive, executors of their own, kills at random moments
	$(BIN)/python -m pytest -m long

bench: setup ## the longer measurements of tests/benchmarks
	$(BIN)/python -m tests.benchmarks

chaos: setup ## kill hundreds of runs at phase ends and random moments (KILLS=200 SEED=1)
	$(BIN)/python -m tests.chaos --kills $(or $(KILLS),200) --seed $(or $(SEED),1)

audit: setup ## known vulnerabilities and licences of what is locked (needs the registry's advisories)
	test -x $(VENV)-audit/bin/pip-audit || { $(PYTHON) -m venv $(VENV)-audit; \
	  $(VENV)-audit/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/audit.in; }
	$(VENV)-audit/bin/pip-audit --requirement requirements/run.lock --require-hashes --disable-pip
	$(VENV)-audit/bin/pip-licenses --python $(BIN)/python --partial-match --fail-on "GPL;AGPL;BUSL;Business Source" \
	  --format=plain --order=license

lint: setup ## style alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

build: setup ## dist/: the wheel, and the same bytes as headgate.zip for spark-submit
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	cp dist/headgate-*.whl dist/headgate.zip
	@ls dist

lock: ## resolve the lock files anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header -o requirements/build.lock requirements/build.in
	uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header --extra demo --extra images --extra dev -o requirements/run.lock pyproject.toml
	uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-header -o requirements/java.lock requirements/java.in

jars: ## the folder that HEADGATE_JARS may name on a closed network: deploy/jars/lib (needs Maven)
	mvn --quiet --file deploy/jars/pom.xml dependency:copy-dependencies -DoutputDirectory=lib
	cd deploy/jars/lib && sha256sum --check ../SHA256SUMS

clean: ## what make made, but not landing/ and lake/
	rm -rf $(VENV) dist deploy/jars/lib
