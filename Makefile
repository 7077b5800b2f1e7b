# The environment lives in .venv and is made again when the dependencies change.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

BENCHED := .venv/.bench

.PHONY: demo test test-torch test-workers kill bad-input fuzz soak test-wheel test-oldest bench results tables ablations lint \
	format clean setup

demo: $(READY)
	@CELLSEG_DATA=experiments/data $(BIN)/cellseg-train experiments/demo.yaml --overwrite --out runs/demo
	@$(BIN)/cellseg-predict runs/demo experiments/data/nuclei/images --out runs/demo-labels --overlay --overwrite
	@echo
	@echo "Report: $(CURDIR)/runs/demo/report.html"

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not torch and not workers'

# PyTorch's wheels weigh gigabytes on most machines, so what needs them stands apart.
test-torch: $(BENCHED)
	$(BIN)/python -m pytest -m torch

# Trainings on several machines, played by processes; what kills them, and logical devices, takes longer than it tells.
test-workers: $(READY)
	$(BIN)/python -m pytest -m workers

# By hand, the results stand in docs/reliability.md: each takes from a quarter of an hour to some hours.
kill: $(READY)
	$(BIN)/python -m tests.reliability.kills
	$(BIN)/python -m tests.reliability.limits

# Every file of tests/corpus.py through the commands: some 15 minutes.
bad-input: $(READY)
	$(BIN)/python -m tests.reliability.bad_input

# MINUTES each of four readers. atheris, which guides the search, is not among what the tests need.
MINUTES ?= 15
fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[fuzz]'
	for reader in image tracks manifest yaml; do $(BIN)/python -m tests.reliability.fuzzing $$reader --minutes $(MINUTES) || exit 1; done

soak: $(READY)
	$(BIN)/python -m tests.reliability.soak

# Environments of their own, 3 GB each; make PYTHONS="python3.12 python3.13" test-wheel for others.
test-wheel: $(READY)
	$(BIN)/python -m tests.reliability.wheel $(if $(PYTHONS),--python $(PYTHONS))

test-oldest: $(READY)
	$(BIN)/python -m tests.reliability.oldest

bench: $(BENCHED)
	for script in reproducibility weight_map shards input_pipeline prepare_memory networks train_step fit_overhead dashboard measures ctc_measures predict measuring tracking mask_rcnn; do $(BIN)/python benchmarks/$$script.py || exit 1; done

# make results NAME=isbi2012-unet2 [SEED=1] [RUN=folder] [PROTOCOL=report]: one experiment, its file in docs/results, the tables of the docs.
results: $(READY)
	$(BIN)/python -m experiments.make_results $(NAME) --seed $(or $(SEED),0) $(if $(RUN),--run $(RUN)) $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(OVERRIDES)

tables: $(READY)
	$(BIN)/python -m experiments.result_tables
	$(BIN)/python -m experiments.make_ablations --tables

# Hours; goes on where it was stopped. make ablations ONLY=psc for one data set, ONLY=psc/loss for one claim on it.
ablations: $(READY)
	$(BIN)/python -m experiments.make_ablations $(if $(ONLY),--only $(ONLY))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(READY)

$(READY): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "cellseg needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

$(BENCHED): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@touch $(BENCHED)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
