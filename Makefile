# make demo     install, run SPATL and FedAvg on real data, compare them
# make test     check, then quick, integration and Ray tests
# make check    style, types, import layers
# make bench    the measured figures
# make reproduce  the sweeps behind RESULTS.md, which take about nine hours of a core; REPRODUCE=small: a round of each grid
# make chaos    runs whose processes are killed at random, and a million damaged payloads
# make cluster  pack what the machines of a cluster install: the wheel, versions and a token
# make cluster-test  ray up, and Slurm, on hosts of our own on this machine (as root; CONTRIBUTING.md names the packages)
# make clean    remove the environment, caches and the demo's results
# make help     show this

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
DEMO := results/demo

# One thread a process: with several, worker processes slow each other down.
export OMP_NUM_THREADS := 1
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: demo test check bench reproduce chaos cluster cluster-test clean help

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev,analysis,tune]'
	@touch $@

demo: $(STAMP)
	$(BIN)/spatl run demo results.folder=$(DEMO) results.overwrite=true
	$(BIN)/spatl run demo algorithm=fedavg results.folder=$(DEMO) results.overwrite=true
	$(BIN)/python analysis/plots.py $(DEMO)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check
	$(BIN)/python -m pytest -n 2 -m "not integration and not ray and not slow"
	$(BIN)/python -m pytest -n 2 -m "integration and not ray and not slow"
	$(BIN)/python -m pytest -m "ray and not slow"

bench: $(STAMP)
	$(BIN)/python tests/benchmarks/run.py

# The full grid is a file for machines with a GPU: python tune/sweep.py reproduce_full
EVIDENCE := reproduce reproduce_parts reproduce_options
SMALL := rounds=1 'seed=[0]' training.epochs=1
reproduce: $(STAMP)
ifeq ($(REPRODUCE),small)
	for grid in $(EVIDENCE); do \
		$(BIN)/python tune/sweep.py $$grid --no-estimate results.folder=results/small/$$grid $(SMALL) clients=10 || exit 1; \
	done
	$(BIN)/python tune/sweep.py reproduce_full --no-estimate results.folder=results/small/reproduce_full $(SMALL) \
		data.samples=1000 evaluation.global_samples=200 clients=10 'partition=[{name: classes, k: 2}]'
else
	for grid in $(EVIDENCE); do \
		$(BIN)/python tune/sweep.py $$grid results.folder=results/$$grid || exit 1; \
	done
	$(BIN)/python analysis/pack.py results/reproduce --by model --out analysis/evidence
	for model in cnn resnet20; do \
		$(BIN)/python analysis/plots.py analysis/evidence/$$model --what rounds bytes --no-show-table \
			--out analysis/figures/$$model || exit 1; \
	done
	$(BIN)/python analysis/refresh.py RESULTS.md
endif

chaos: $(STAMP)
	rm -rf results/chaos results/kills results/kills_ray
	$(BIN)/python tests/chaos/fuzz.py
	$(BIN)/python tests/chaos/soak.py
	$(BIN)/python tests/chaos/kills.py
	$(BIN)/python tests/chaos/kills.py --backend ray --kills 6 --rounds 60 --out results/kills_ray

cluster: $(STAMP)
	rm -rf dist/cluster
	$(BIN)/python -m pip wheel -q --no-deps -w dist/cluster .
	cp constraints.txt cluster/install.sh dist/cluster
	[ -f ~/.ray/auth_token ] || $(BIN)/ray get-auth-token --generate >/dev/null
	cp ~/.ray/auth_token dist/cluster/auth_token

cluster-test: cluster
	$(BIN)/python -m pytest -m "cluster" tests/cluster

clean:
	rm -rf .venv build dist $(DEMO) .hypothesis .import_linter_cache .mypy_cache .pytest_cache \
		.ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:
	@sed -n 's/^# make /make /p' $(MAKEFILE_LIST)
