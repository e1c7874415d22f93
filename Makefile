# make demo   set up, then run the main job on the embedded ClickHouse, and stop
# make test   set up, then run the tests
# make faults everything that may go wrong, all scenarios; writes docs/fault-matrix.md
# make rehearse   410 miniature shards through the whole stack, with trouble and repair (PostgreSQL)
# make fuzz   100,000 odd inputs for each parser, FUZZ_EXAMPLES of them otherwise
# make soak   twenty minutes of everything at once; nothing may grow
# make up     start the same stack and leave it running, whole again if a part has died
# make down   stop it, and what is left of a demo that was killed
# make env    make .env, the secrets of docker-compose.yaml, unless it exists
# make stack  start docker-compose.yaml with Docker, after checking .env and ports
# make celery the same topology without Docker, as a test: PostgreSQL, Redis, S3, a worker killed
# make images what the Docker images hold, installed and run without Docker, as a test
# make lint   formatting, lint, types, layers
# make airflows   install the wheel beside the oldest and the newest Airflow and test it there (needs uv)
# make bench  measure; figures are ratios within one run
# make pictures   take the README's pictures anew, by the browser tests (needs chromium)
# make docs   write anew what the docs say of the DAGs, of the errors and of licences
# make lock   resolve the dependencies of pyproject.toml anew (needs uv)

SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.complete
STATE := .state

.DEFAULT_GOAL := help
.PHONY: help setup demo up down test faults rehearse fuzz soak lint bench pictures docs lock env airflows stack celery images

help:
	@sed -n 's/^# make /make /p' $(MAKEFILE_LIST)

setup: $(STAMP)

# The stamp is written last, so an interrupted set-up is simply done again.
$(STAMP): requirements-dev.lock requirements-no-deps.lock pyproject.toml scripts/setup.sh
	@bash scripts/setup.sh $(VENV)
	@touch $@

demo: setup
	@$(PYTHON) -m laion.sample.demo run --state $(STATE)/demo

up: setup
	@$(PYTHON) -m laion.sample.demo up --state $(STATE)/up

down:
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m laion.sample.demo down --state $(STATE)/up $(STATE)/demo; else echo "Nothing is running: the project is not set up."; fi

test: setup
	@$(PYTHON) -m pytest -n logical --maxprocesses 4 --dist loadfile

faults: setup
	@mkdir -p $(STATE) && rm -f $(STATE)/faults.jsonl
	@FAULT_MATRIX=$(CURDIR)/$(STATE)/faults.jsonl $(PYTHON) -m pytest -n logical --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder -m "slow_fault or not slow_fault" tests/system/faults
	@$(PYTHON) -m tests.system.faults.matrix $(STATE)/faults.jsonl > docs/fault-matrix.md

rehearse: setup
	@$(PYTHON) -m tests.system.rehearsal --state $(STATE)/rehearsal

fuzz: setup
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-100000} $(PYTHON) -m pytest -n logical --maxprocesses 4 --durations 0 tests/unit/test_fuzz.py tests/unit/test_convert_fuzz.py

soak: setup
	@AIRFLOW_HOME=$(CURDIR)/$(STATE)/soak/airflow $(PYTHON) -m tests.system.soak --state $(STATE)/soak

lint: setup
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

env:
	@bash scripts/env.sh

stack:
	@bash scripts/stack.sh

celery: setup
	@$(PYTHON) -m pytest -s tests/system/test_celery.py

images: setup
	@$(PYTHON) -m pytest -s -m images tests/system/test_images.py

bench: setup
	@$(PYTHON) -m bench
	@$(PYTHON) -m bench.growth
	@$(PYTHON) -m bench.index
	@$(PYTHON) -m bench.kinds
	@TEXTS=1 $(PYTHON) -m bench.kinds
	@$(PYTHON) -m bench.encoders
	@$(PYTHON) -m bench.downloads
	@$(PYTHON) -m bench.pull
	@$(PYTHON) -m bench.web

pictures: setup
	@SCREENSHOTS=$(STATE)/screenshots $(PYTHON) -m pytest tests/browser
	@for name in run shards shards-dark search; do cp $(STATE)/screenshots/$$name.png docs/images/; done

docs: setup
	@$(PYTHON) scripts/reference.py
	@$(PYTHON) scripts/licences.py > docs/licences.md

airflows:
	@bash scripts/airflows.sh

lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --extra demo --extra s3 --extra sftp --extra celery pyproject.toml -o requirements.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --extra demo --extra s3 --extra sftp --extra celery --extra dev -c requirements.lock pyproject.toml -o requirements-dev.lock
