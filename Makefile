# Each target installs what it uses into .venv, so that `make demo` or `make test` is all that a fresh machine needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.PHONY: install demo test lint bench card clean

PYTHON ?= python3
DEMO ?= demo
IMAGES ?= $(DEMO)/data/ISIC-2017_Test_v2_Data/ISIC_200000[0-2].jpg
DATA ?= isic2017
RELEASED := serve/model_repository
MEASURED := benchmarks/results/isic2017-release
BIN := .venv/bin
READY := .venv/.ready

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

install: $(READY)

# First the released networks, on images of yours (`make demo IMAGES=lesion.jpg`) or drawn ones. Then everything else on
# drawn images: train, evaluate, export, serve, ask over gRPC. A second run finds the trained networks.
demo: $(READY)
	@export PATH="$$PWD/$(BIN):$$PATH"
	step() { printf '\n$$ %s\n' "$$*" >&2; "$$@"; }
	step mbdcnn data sample $(DEMO)/data
	step mbdcnn predict --repository $(RELEASED) --out $(DEMO)/released $(IMAGES)
	step mbdcnn train all --data $(DEMO)/data --run $(DEMO)/run --preset smoke
	step mbdcnn evaluate --run $(DEMO)/run --data $(DEMO)/data
	step mbdcnn export --run $(DEMO)/run --out $(DEMO)/repository
	printf '\n$$ %s\n' "mbdcnn serve --repository $(DEMO)/repository &" >&2
	mbdcnn serve --repository $(DEMO)/repository & server=$$!
	trap 'kill -TERM $$server 2>/dev/null || true; wait $$server || true' EXIT
	step mbdcnn predict --wait 120 --out $(DEMO)/answers $(DEMO)/data/ISIC-2017_Test_v2_Data/ISIC_200000[0-5].jpg
	kill -TERM $$server  # fails where another program held the port and answered instead
	wait $$server; trap - EXIT
	python -c 'import json, sys; r = json.load(open(sys.argv[1])); print("\nOn %d images that the networks did not see: JA %.3f coarse, %.3f enhanced; mean AUC %.3f" % (r["n_images"], r["coarse"]["JA"], r["enhanced"]["JA"], r["classification"]["mean_AUC"]))' \
	    $(DEMO)/run/evaluation/validation/metrics.json
	echo "Report:  $(DEMO)/run/evaluation/validation/report.html"
	echo "Answers: $(DEMO)/answers, and the released networks' in $(DEMO)/released"

test: $(READY) lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every comparison in full, each filed as JSON; files that start with _ are shared parts, not comparisons.
bench: $(READY)
	mkdir -p benchmarks/results
	for script in benchmarks/[!_]*.py; do
	    name=$$(basename "$$script" .py)
	    printf '\n$$ %s\n' "python $$script" >&2
	    $(BIN)/python "$$script" --json > "benchmarks/results/$$name.json.part"
	    mv "benchmarks/results/$$name.json.part" "benchmarks/results/$$name.json"
	done

# MODEL_CARD.md and CLAIM.md anew: the released networks measured on ISIC-2017, beside what was measured before.
card: $(READY)
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT
	$(BIN)/mbdcnn evaluate --repository $(RELEASED) --data $(DATA) --out "$$folder"
	cp "$$folder/metrics.json" $(MEASURED)/metrics.json
	compare=(); export LC_ALL=C
	for file in $(MEASURED)/*.json; do
	    name=$$(basename "$$file" .json)
	    if [[ $$name != metrics ]]; then compare+=(--compare "$${name//_/ }=$$file"); fi
	done
	$(BIN)/mbdcnn card --repository $(RELEASED) --scores $(MEASURED)/metrics.json --paper "$${compare[@]}" \
	    --about serve/about/isic2017.yaml

clean:
	rm -rf .venv $(DEMO) .mypy_cache .ruff_cache .pytest_cache *.egg-info
