# make demo   set up, then the main job on real data: fit, export, recommend, feedback, quality
# make test   set up, then every test, fast ones first
# make check  set up, then lint, format and types
# make peers  set up other libraries' recommenders, in .venv-peers, for the benchmarks that compare with them
# Each sets up .venv where it is missing or out of date, and nothing is done twice.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
EXTRAS := minilm,bench,test,lint,report,spark,tune

export HF_HUB_OFFLINE := 1
unexport PYTHONDONTWRITEBYTECODE  # tests start many processes, each of which would compile the libraries again

.PHONY: demo test check peers clean

demo: $(READY)
	$(BIN)/python -m bench demo

test: $(READY)
	$(BIN)/python -m pytest -q -m "not slow" -n 3
	$(BIN)/python -m pytest -q -m slow -n 3

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

peers: .venv-peers/ready

.venv-peers/ready: constraints-peers.txt
	test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --constraint constraints-peers.txt "rectools[torch]" lenskit pyarrow
	@touch $@

$(READY): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

clean:
	rm -rf .venv .venv-peers build *.egg-info runs
