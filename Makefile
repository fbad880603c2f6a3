# Two commands matter: `make reproduce` and `make test`. All create the environment first, once.
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Quiet, and no look-ups over the network while the study runs.
export HF_HUB_OFFLINE := 1
export DVC_NO_ANALYTICS := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: reproduce verify test book env notebooks lock clean

reproduce: env  ## every figure and table, from the embedded cohort and the published trainings
	dvc pull --quiet --allow-missing
	@# The stages of the published run, and none that they would have to wait for. What it has not kept (weights of many
	@# trainings) is made again only where it is asked for. Without a name, DVC would run every stage.
	stages=$$(python -m cmri_lib.train published) && test -n "$$stages" && \
	    dvc repro --single-item --pull --allow-missing $$stages
	@python -m cmri_lib.run --summary

verify: env  ## every figure and table whose trainings are published drawn again, and compared with the published ones
	dvc pull --quiet --allow-missing
	stages=$$(python -m cmri_lib.train complete) && test -n "$$stages" && dvc repro --single-item --force $$stages
	python -m cmri_lib.verify

test: env  ## the whole suite, smoke pipeline included
	dvc pull --quiet data.dvc
	python -m pytest

book: env  ## the study as pages to browse without a network: book/index.html
	python -m cmri_lib.book

env: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@echo "installing the locked packages into .venv, some minutes once"
	$(PYTHON) -m venv .venv
	python -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.lock
	python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# A downloaded archive is no git repository, and DVC must be told so.
	git rev-parse --git-dir > /dev/null 2>&1 || dvc config --local core.no_scm true
	touch $@

notebooks: env  ## after editing notebooks/*.py: bring the paired .ipynb in step
	jupytext --sync notebooks/*.py

lock: env  ## after changing dependencies in pyproject.toml and installing them
	python -m pip freeze --all --exclude-editable --exclude pip | sed 's/+cpu//' | LC_ALL=C sort -f > requirements.lock

clean:  ## forget everything computed; data, results and figures stay
	rm -rf work executed
