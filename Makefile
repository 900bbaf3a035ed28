# make demo and make test need Python >= 3.11 and make, nothing else; the rest lands in .venv.

PYTHON ?= $(firstword $(foreach p,python3.13 python3.12 python3.11 python3,$(if $(shell \
	$(p) -c 'import sys, venv, ensurepip; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))))
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test lint types bench bench-compare dashboard clean help

help: ## what each target does
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

demo: $(READY) ## evaluate the bundled dump; table here, report and figures under out/
	@mkdir -p out
	@echo "evaluating the bundled dump; the first run compiles kernels, which takes up to a minute"
	@$(BIN)/fastxent eval examples/digits.parquet --by fold --cluster block --id id \
		--report out/digits.html --output out/digits.json --per-row out/digits.rows.parquet
	@echo
	@echo "report: out/digits.html    figures as JSON: out/digits.json    per-row losses: out/digits.rows.parquet"

test: $(READY) ## the whole suite, doctests included, on all processors; a file's tests stay together
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

lint: $(READY) ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

bench: $(READY) ## every benchmark, the table of marks, a record of it; QUICK=1 for a look, SIZE=2GB for large files
	$(BIN)/python -m bench.table $(if $(QUICK),--quick) $(if $(SIZE),--size $(SIZE))

bench-compare: $(READY) ## fail if the working tree is slower than BASE=<rev>; K=<pattern> for some cases, QUICK=1
	$(BIN)/python -m bench.compare $(or $(BASE),$(error name the commit to compare with: make bench-compare BASE=main)) \
		$(if $(QUICK),--quick) $(if $(K),-k '$(K)')

dashboard: $(READY) ## the history of the benchmarks as one page: out/dashboard.html
	$(BIN)/python -m bench.dashboard

clean: ## forget the environment and everything built
	rm -rf .venv out build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks

# Installed again only when the dependencies may have changed.
$(READY): pyproject.toml
	@test -n "$(PYTHON)" -o -x $(BIN)/python || { \
		echo "fastxent needs Python 3.11 or newer with venv; name one: make PYTHON=/path/to/python" >&2; exit 2; }
	@test -x $(BIN)/python || { echo "creating the environment .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	@echo "installing fastxent and its dependencies into .venv; this downloads some hundred MB and takes minutes"
	@$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed --editable '.[dev]'
	@touch $@
