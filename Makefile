# make demo: set up, then the main job on the embedded demo.    make test: set up, then the tests.
PYTHON ?= python3
CORES ?= 2
VENV := .venv

# uv leaves no compiled files and ignores pip's folder of wheels: without these the first job of every stage compiles
# torch and scikit-image, and a local CPU build of torch isn't found. Elsewhere uv picks the build that fits the driver.
export UV_COMPILE_BYTECODE := 1
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
else
export UV_TORCH_BACKEND ?= auto
endif
export PYTHONNOUSERSITE := 1
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-slurm test-conda test-fuzz test-containers test-sharing docs bench bench-training clean

demo: $(VENV)/.ready
	$(VENV)/bin/snakemake --cores $(CORES)
	@echo "Look at results/report/index.html"

test: $(VENV)/.ready $(VENV)/.executors
	@[ -z "$$CI" ] || tests/slurm/install.sh  # elsewhere nothing is installed outside $(VENV) unasked
	$(VENV)/bin/python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder -rs --durations 20

test-slurm: $(VENV)/.ready $(VENV)/.executors  ## the demo and a small run through a real Slurm on this machine, an hour or so
	tests/slurm/install.sh
	VOXLOOM_TEST_SLURM=demo $(VENV)/bin/python -m pytest tests/slurm/test_flow.py --durations 5
	VOXLOOM_TEST_SLURM=1 $(VENV)/bin/python -m pytest tests/slurm -rs --durations 20

test-conda: $(VENV)/.conda  ## the small run under --use-conda; with a conda of its own where there is none
	VOXLOOM_TEST_CONDA=1 $(VENV)/bin/python -m pytest tests/e2e/test_conda.py --durations 10

test-fuzz: $(VENV)/.ready  ## damaged and malicious files for every reader, some minutes
	VOXLOOM_FUZZ_EXAMPLES=500 $(VENV)/bin/python -m pytest -n $(CORES) tests/property/test_readers_fuzz.py tests/property/test_nrrd_fuzz.py \
	    tests/unit/test_untrusted.py

test-containers: $(VENV)/.ready  ## the recipes' installation in a new environment, and the image where something builds one
	VOXLOOM_TEST_CONTAINERS=1 $(VENV)/bin/python -m pytest tests/workflow/test_containers.py --durations 5

test-sharing: $(VENV)-sharing/.ready  ## Snakemake's cache and storage plugins, and the manifest by its profile's own validator
	$(VENV)-sharing/bin/python -m pytest -rs tests/workflow/test_sharing.py tests/unit/test_manifest.py

docs: $(VENV)/.ready  ## rewrite the pages that come from the code
	$(VENV)/bin/python docs/generate.py

bench: $(VENV)/.peers  ## measure the stages beside their peers, some hours; rewrites docs/performance.md and its figures
	$(VENV)/bin/python benchmarks/run.py

bench-training: $(VENV)/.peers  ## measure training, an hour and more; rewrites docs/training_results.md
	$(VENV)/bin/python benchmarks/run.py --training

# beside the environment, not in it: every plugin that Snakemake finds makes its start slower
$(VENV)/.executors: $(VENV)/.ready
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --no-deps --constraint constraints.txt --target $(VENV)/executors \
	    snakemake-executor-plugin-slurm snakemake-executor-plugin-slurm-jobstep snakemake-executor-plugin-cluster-generic
	touch $@

$(VENV)/.peers: $(VENV)/.ready benchmarks/requirements.txt
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --no-deps --requirement benchmarks/requirements.txt
	touch $@

$(VENV)/.conda: $(VENV)/.ready
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --constraint constraints.txt --editable '.[test-conda]'
	touch $@

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt uv
	VIRTUAL_ENV=$(VENV) $(VENV)/bin/uv pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

# of its own: storage plugins make Snakemake start slower, and S3's and the validator need older packages than the lock has
$(VENV)-sharing/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)-sharing
	grep -v -E '^(python-dateutil|requests-oauthlib|rich)=' constraints.txt > $(VENV)-sharing/constraints.txt
	$(VENV)-sharing/bin/python -m pip install --quiet --constraint constraints.txt uv
	VIRTUAL_ENV=$(VENV)-sharing $(VENV)-sharing/bin/uv pip install --quiet --constraint $(VENV)-sharing/constraints.txt \
	    --editable '.[storage]' pytest filelock rocrate roc-validator 'moto[server,s3]' snakemake-storage-plugin-fs
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-sharing
