# Every target does its own set-up. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# command=package of the distribution: needed by tests of system calls and of the web page.
TEST_PACKAGES := strace=strace chromium=chromium faketime=faketime jq=jq openssl=openssl curl=curl sqlite3=sqlite3 xxd=xxd \
	/usr/sbin/pgbouncer=pgbouncer bwrap=bubblewrap

.DEFAULT_GOAL := help
.PHONY: help setup run test test-quick test-loaded test-fault test-fault-long soak fuzz lint-collector check demo bench collector collector-full backends registry pins sbom audit clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The installation that runs the service. It is repeated only when its inputs have changed.
$(VENV)/.installed: requirements/build.txt requirements/run.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("auditrace needs Python 3.11 or newer; set PYTHON=") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

setup: $(VENV)/.installed-dev ## Create .venv with everything that tests and checks need

run: $(VENV)/.installed ## Start the service on 127.0.0.1:8080, with the embedded database and archive
	$(BIN)/auditrace serve

demo: $(VENV)/.installed ## Run four jobs on a real server, and verify its records
	$(BIN)/auditrace demo

test: $(VENV)/.installed-dev ## Run all tests; before that, build collector, backends and tools if Go and Maven are installed (about half an hour, once)
	@for built in otelcol backends tools opensearch; do deploy/$$built/build.sh || { test $$? = 2 && test -z "$$CI"; } || exit 1; done
	@tests/support/packages.sh $(TEST_PACKAGES)
	@deploy/postgres-for-tests.sh
	$(BIN)/python -m pytest -n 2 tests

test-quick: $(VENV)/.installed-dev ## Run the tests without builds and PostgreSQL in two minutes: unit, contract on SQLite, a few examples of each property
	AUDITRACE_TEST_QUICK=1 $(BIN)/python -m pytest -n 2 tests/unit tests/contract tests/property

test-loaded: $(VENV)/.installed-dev ## Run all tests three times while stress-ng runs two busy processes on each processor
	@tests/support/packages.sh stress-ng=stress-ng
	tests/support/loaded.sh

test-fault: $(VENV)/.installed-dev ## Run only the fault tests: kills, full disks, outages, clock steps
	@deploy/otelcol/build.sh
	@tests/support/packages.sh $(TEST_PACKAGES)
	$(BIN)/python -m pytest -s tests/fault

test-fault-long: $(VENV)/.installed-dev ## Run long fault tests: 200 kills of each process, 500 in a cluster, outages of minutes; write docs/evidence
	@deploy/otelcol/build.sh
	@tests/support/packages.sh $(TEST_PACKAGES)
	$(BIN)/python -m tests.fault.kills --kills 200 --log docs/evidence/kills.md
	$(BIN)/python -m tests.fault.cluster --kills 500 --records 1000000 --log docs/evidence/cluster.md
	AUDITRACE_TEST_LONG=1 $(BIN)/python -m pytest -s tests/fault/test_backend_faults.py -k give_up

fuzz: $(VENV)/.installed-dev ## Look for bytes that break a reader of outside input, for ten minutes each: OTLP JSON, canonical form, traceparent, JWT
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	for target in otlp-json canonical-form traceparent jwt; do $(BIN)/python -m tests.fuzz $$target -max_total_time=600 -max_len=8192 || exit 1; done

soak: $(VENV)/.installed-dev ## Kill processes at random under load for an hour
	@deploy/otelcol/build.sh
	$(BIN)/python -m tests.fault.kills --minutes 60 --log build/soak.md

lint-collector: $(VENV)/.installed-dev ## Check collector configurations against the rules that keep audit records
	$(BIN)/python -m deploy.otelcol.lint

check: $(VENV)/.installed-dev ## Check style, types, layers, generated files, migrations and README
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m telemetry.registry.generate --check
	$(BIN)/python -m tests.checks
	$(BIN)/python -m deploy.otelcol.lint
	$(BIN)/python -m deploy.grafana --check

bench: $(VENV)/.installed-dev ## Measure speed, as ratios to a peer or to a limit in the same run
	$(BIN)/python -m tests.benchmarks

collector: ## Build the pinned OpenTelemetry Collector into build/bin (cached for all clones)
	@deploy/otelcol/build.sh

collector-full: ## Build the collector with Kafka and S3, and validate their overlays
	@deploy/otelcol/build.sh builder-full.yaml
	@deploy/otelcol/effective.sh --check kafka s3

backends: ## Build the backends and tools of the tests into build/bin (cached for all clones; about half an hour, once)
	@deploy/backends/build.sh
	@deploy/tools/build.sh
	@deploy/opensearch/build.sh

registry: $(VENV)/.installed-dev ## Generate telemetry/names.py from telemetry/registry
	$(BIN)/python -m telemetry.registry.generate

pins: ## Generate requirements/*.txt from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml -o requirements/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group build -o requirements/build.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group dev -c requirements/run.txt pyproject.toml -o requirements/dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --group fuzz -o requirements/fuzz.txt

sbom: ## Write the components of a release (CycloneDX) and their licences into build/sbom
	@deploy/tools/supply/sbom.sh

audit: ## Check the pinned packages against known vulnerabilities, at osv.dev or else against a stored snapshot
	@deploy/tools/build.sh supply
	build/bin/supply/bin/python deploy/tools/supply/audit.py requirements/*.txt deploy/tools/*/requirements.txt

clean: ## Remove built files; data in var/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
