# The two commands that matter: `make demo` and `make test`. Both make the environment they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-busy torture check serve bench docs lock clean

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/python tools/install.py
	@touch $(STAMP)

demo: $(STAMP)
	@$(BIN)/python examples/quickstart/demo.py

test: $(STAMP)
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile

test-busy: $(STAMP)
	@$(BIN)/python tools/busy.py 2 $(BIN)/python -m pytest -q -n 3 --dist loadfile

torture: $(STAMP)
	@$(BIN)/python -m pytest -q -m torture

check: $(STAMP)
	$(BIN)/ruff check src tests examples bench tools
	$(BIN)/ruff format --check src tests examples bench tools
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 src/modelyard_runtime  # the oldest that mypy takes; the programs run on 3.8
	$(BIN)/lint-imports

serve: $(STAMP)
	@$(BIN)/yard up --foreground

bench: $(STAMP)
	@$(BIN)/python bench/run.py

docs: $(STAMP)
	@$(BIN)/mkdocs build --strict

lock: $(STAMP)
	@$(BIN)/uv pip compile --quiet pyproject.toml --extra postgres --group dev --universal --python-version 3.11 \
		--no-emit-index-url --no-emit-find-links --no-header --no-annotate --upgrade -o constraints.txt

clean:
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache
