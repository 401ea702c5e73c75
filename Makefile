.PHONY: quickstart test test-slow lint format clean
VENV := .venv
RUN := $(VENV)/bin/

quickstart: $(VENV)/.ready  ## fine-tune, distil and quantize a real model in a few minutes
	$(RUN)hf-shrink quickstart

test: $(VENV)/.ready  ## the suite but for what is slow, offline, on the CPU
	$(RUN)python -m pytest -n 2 -m "not slow"

test-slow: $(VENV)/.ready  ## what `make test` leaves out: notebooks, examples, quickstart, several processes
	$(RUN)python -m pytest -n 2 -m slow

lint: $(VENV)/.ready  ## style, types, docstrings
	$(RUN)ruff check && $(RUN)ruff format --check && $(RUN)mypy && $(RUN)pydoclint --quiet hf_shrink

format: $(VENV)/.ready  ## mend what can be mended
	$(RUN)ruff check --fix && $(RUN)ruff format

clean:  ## remove everything that was made
	rm -rf .venv .venv-* dist build *.egg-info .pytest_cache .ruff_cache .mypy_cache quickstart-out

$(VENV)/.ready: pyproject.toml constraints/current.txt tools/make-venv
	tools/make-venv $(VENV) constraints/current.txt dev,openvino,torchao
