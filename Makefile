# Every target installs what it needs; a fresh machine needs Python 3.11 or newer and make.
.DEFAULT_GOAL := check
.PHONY: check test lint demo bench soak limits audit races isolation kills rotation docs lock format clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(VENV)/.run
INSTALLED := $(VENV)/.installed
PACKAGES := tests/kit/debian-packages.sh
NODE_MODULES := tests/npm/node_modules/.package-lock.json

check: test

# What Orgate itself needs: enough for the demo.
$(RUN): requirements/base.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "orgate needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing: install the package python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/base.txt
	@echo "$(CURDIR)" > $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/orgate.pth
	@printf '#!%s\nimport sys\nfrom cli.main import main\nsys.exit(main())\n' "$(CURDIR)/$(BIN)/python" > $(BIN)/orgate && chmod +x $(BIN)/orgate
	@touch $@

# What tests, linters and benchmarks add.
$(INSTALLED): $(RUN) requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# The npm packages of the tests, with the Node.js that dev.txt pins.
$(NODE_MODULES): $(INSTALLED) tests/npm/package-lock.json
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm ci --prefix tests/npm --silent
	@touch $@

demo: $(RUN)
	$(BIN)/orgate demo

lint: $(INSTALLED)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: lint $(NODE_MODULES)
	@$(PACKAGES) curl gcc libc6-dev libnghttp2-dev libssl-dev haproxy nghttp2-server redis-server nodejs postgresql git chromium rsyslog rsyslog-openssl
	$(BIN)/python -m pytest

# SIZE=small ends in about a minute.
bench: $(INSTALLED)
	@$(PACKAGES) gcc libc6-dev libnghttp2-dev libssl-dev haproxy util-linux redis-server
	$(BIN)/python -m tests.bench

# 100,000 completions, 45 % given up, 40 streams beside them. SIZE=small ends in a minute; exits 1 if anybody noticed.
soak: $(INSTALLED)
	@$(PACKAGES) gcc libc6-dev libnghttp2-dev libssl-dev
	$(BIN)/python -m tests.soak

# 3,250,000 requests from eight processes at twice their limits, Redis killed meanwhile. SIZE=small ends in a minute.
limits: $(INSTALLED)
	@$(PACKAGES) redis-server gcc libc6-dev libnghttp2-dev libssl-dev
	$(BIN)/python -m tests.limits

# 100,000 mutated packs judged by both verifiers, 1,000 kills of the log's writers, a pack of 1,000,000 entries timed.
# SIZE=small ends in a minute.
audit: $(INSTALLED)
	@$(PACKAGES) nodejs
	$(BIN)/python -m tests.audit

# 10,000 refresh tokens, each refreshed by 50 at once from two processes: half of them on SQLite, half on PostgreSQL.
# SIZE=small ends in a minute; exits 1 when a token had two successors, or its reuse did not end the family.
races: $(INSTALLED)
	@$(PACKAGES) postgresql
	$(BIN)/python -m tests.races

# Every operation, id and kind of credential of five organizations against each other, 20,000 requests and more, and
# builds that are broken on purpose. SIZE=small asks a part; exits 1 when anything crossed or was not asked.
isolation: $(INSTALLED)
	@$(PACKAGES) redis-server
	$(BIN)/python -m tests.isolation

# A writer of the sealed file, killed with SIGKILL within 1,000 of its writes; the test suite does 40.
kills: $(INSTALLED)
	ORGATE_KILLS=1000 $(BIN)/python -m pytest -q -rP tests/unit/secrets/test_sealed_kills.py

# 10,000 completions while keys are rotated, revoked at once, and turn bad; exits 1 when a request failed.
rotation: $(INSTALLED)
	$(BIN)/python -m tests.rotation

docs: $(INSTALLED)
	$(BIN)/python -m docs.build

lock: $(INSTALLED)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/base.in -o requirements/base.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header requirements/dev.in -o requirements/dev.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
