# make train       train the LeNet with its transformer on MNIST
# make test        run the quick tests; ARGS="-k padding" for some of them
# make test-all    run all tests
# make check       ruff, and the quick tests of what changed since the last commit
# make setup       only set up: .venv, the pinned requirements, the data
# make accuracy    the table in docs/training.md: many full runs; can be stopped, goes on
# make paper       the tables of the paper's MNIST experiments: many hours, likewise; for some
#                  minutes ARGS=--quick
# make published   the models in published/ that are not there: remove one to train it again
# make compare     a network with and without its transformer, over seeds: ARGS as for make train
# make demo        a page to draw digits on: see docs/demo.md; ARGS="--port 8001"
# make recover     how well each transform learns to undo a distortion
# make robustness  short trainings with and without a transformer, by many optimizers: three hours
# make signs       a residual network on drawn traffic signs, with none, one and two transformers
# make numbers     the paper's network for house numbers on drawn ones: 3 hours of one core
# make rotation    digits turned by any angle: a CNN, and transformers before it; an hour of two cores
# make colocalise  where digits are, found without labels: the paper's co-localisation
# make doctor      what is there and what is broken: belongs into a bug report; sets nothing up
# make bench       images/s beside PyTorch's, which it sets up in .venv-torch, and others'; in two
#                  minutes and without PyTorch, ratios beside the committed ones: ARGS=--quick
# make growth      images/s and memory against batches, pictures, transformers and devices
#
# PYTHON=python3.9     the interpreter for .venv; by default the first suitable one
# MXNET=mxnet-cu112    the MXNet package: this one is for NVIDIA GPUs with CUDA 11.2; remembered
# TEST_DEVICE=gpu0     what make test and test-all run the transformers and the networks on
# ARGS="--lr 0.001"    more flags for what is run; not for make check, setup, published and doctor

unexport PYTHONSAFEPATH  # with it, Python does not find what it is told to run by -m

VENV := .venv
RUN := $(VENV)/bin/python
# The set-up leaves a file that is named for what it was made of, such as ready-3.11-mxnet.
DONE := $(strip $(wildcard $(VENV)/ready-*))
MXNET ?= $(or $(shell echo "$(DONE)" | sed 's/.*ready-[0-9.]*-//'),mxnet)
CANDIDATES := $(if $(DONE),$(RUN)) python3 python3.13 python3.12 python3.11 python3.10 python3.9 \
    python3.8

ifdef PYTHON
  COMPLAINT := $(shell $(PYTHON) common/find_mxnet.py 2>&1 || echo "$(PYTHON) is not to be used")
else
  PYTHON := $(shell for python in $(CANDIDATES); do \
      $$python common/find_mxnet.py 2>/dev/null && echo $$python && break; done)
  ifeq ($(PYTHON),)
    COMPLAINT := no suitable Python: install 64-bit CPython 3.8 to 3.13, or name one by PYTHON=
  endif
endif
ifneq ($(COMPLAINT),)
  ifneq ($(MAKECMDGOALS),doctor)
    $(error $(COMPLAINT))
  endif
endif

# A process that has no tests left takes half of another's.
PYTEST := $(RUN) -m pytest -n auto --dist worksteal
# What has changed since the last commit, and the tests of that: of a/b.py, tests/test_b.py, of
# pages, networks and examples those of all, and else those that import it.
CHANGED = $(shell git status --porcelain -uall | \
    sed -n -e 's/.* \(.*\.py\)$$/\1/p' -e 's/.* \(.*\.md\)$$/\1/p')
name_of = $(patsubst test_%,%,$(basename $(notdir $(1))))
tests_of = $(or $(strip $(wildcard tests/test_$(call name_of,$(1)).py) \
    $(if $(filter %.md,$(1)),tests/test_docs.py tests/test_layout.py) \
    $(if $(filter symbols/%.py,$(1)),tests/test_networks.py) \
    $(if $(filter examples/%,$(1)),tests/test_examples.py)), \
    $(shell grep -lwE "(from|import) .*$(call name_of,$(1))" tests/test_*.py))
TESTS = $(sort $(foreach name,$(CHANGED),$(call tests_of,$(name))))
UNTESTED = $(strip $(foreach name,$(CHANGED),$(if $(call tests_of,$(name)),,$(name))))

VERSION := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])")
READY := $(VENV)/ready-$(VERSION)-$(MXNET)

.PHONY: train test test-all check setup accuracy paper published compare demo recover \
    robustness signs numbers rotation colocalise bench growth doctor
.DELETE_ON_ERROR:

# A second time, what was stopped goes on, and what is trained is only evaluated.
train: setup
	$(RUN) train_mnist.py $(if $(findstring load-epoch,$(subst _,-,$(ARGS))),,--resume) --add-stn $(ARGS)

test: setup
	$(RUN) -m ruff check .
	$(PYTEST) -m "not slow" $(ARGS)

test-all: setup
	$(RUN) -m ruff check .
	$(PYTEST) $(ARGS)

check: setup
	$(RUN) -m ruff check .
	$(if $(TESTS),$(PYTEST) -m "not slow" $(TESTS))
	$(if $(UNTESTED),@echo "Tested within others alone: $(UNTESTED): see make test")

setup: $(READY)
	@$(RUN) -m common.data.mnist

# MXNet for GPUs comes with 2.4 GB of wheels that unpack to 4.
FOR_GPUS := $(filter mxnet-cu%,$(MXNET))

$(READY): requirements.txt requirements-test.txt $(if $(FOR_GPUS),requirements-cuda11.txt)
	$(if $(FOR_GPUS),@df -Pk . "$${TMPDIR:-/tmp}" | awk 'NR > 1 && $$4 < 8e6 {low = 1; print \
	    "MXNet for GPUs needs 8 GB of disk: " $$6 " has " int($$4 / 1e5) / 10} END {exit low}')
	rm -f $(VENV)/ready-*
	$(if $(filter $(RUN),$(PYTHON)),,$(PYTHON) -m venv --clear $(VENV))
	$(RUN) -m pip freeze | grep '^mxnet' | xargs -r $(RUN) -m pip uninstall -q -y
	$(RUN) -m pip install -q --only-binary=:all: -r requirements.txt -r requirements-test.txt
	$(if $(FOR_GPUS),,$(RUN) -m pip install -q --only-binary=:all: --no-deps $(MXNET)==1.9.1)
	$(if $(FOR_GPUS),$(RUN) -m pip install --only-binary=:all: --no-deps $(MXNET)==1.9.1 \
	    -r requirements-cuda11.txt)
	$(RUN) -c "from common import find_mxnet"
	touch $@

accuracy: setup
	$(RUN) -m experiments.accuracy $(ARGS)

paper: setup
	$(RUN) -m experiments.paper $(ARGS)

# Their recipes are the default one, on two devices, and the paper's, on one: the bits depend on that.
PUBLISHED := mnist-lenet mnist-lenet-stn mnist-lenet-stn-stable mnist-R-cnn-stn \
    mnist-RTS-cnn-stn mnist-RTS-mlp mnist-RTS-mlp-stn-stable
PAPER := --batch-size 128 --lr 0.004 --warmup-epochs 2 --cpus 1
published/mnist-lenet/%: FLAGS := --cpus 2
published/mnist-lenet-stn/%: FLAGS := --add-stn --cpus 2
published/mnist-lenet-stn-stable/%: FLAGS := --add-stn --stable --cpus 2
published/mnist-R-cnn-stn/%: FLAGS := --network cnn --width 57 --distort R --add-stn \
    --num-epochs 16 $(PAPER)
published/mnist-RTS-cnn-stn/%: FLAGS := --network cnn --width 67 --distort RTS --add-stn --pool 2 \
    --num-epochs 16 $(PAPER)
published/mnist-RTS-mlp/%: FLAGS := --network mlp --width 68 --distort RTS --num-epochs 60 $(PAPER)
published/mnist-RTS-mlp-stn-stable/%: FLAGS := --network mlp --width 174 --distort RTS --add-stn \
    --stable --pool 2 --num-epochs 60 $(PAPER)

published: $(PUBLISHED:%=published/%/model-0000.params)

published/%/model-0000.params: | setup
	$(RUN) train_mnist.py --resume --model-prefix models/published/$* $(FLAGS)
	$(RUN) export.py models/published/$* --output $(@D)

compare: setup
	$(RUN) compare_stn.py $(ARGS)

demo: $(READY)
	$(RUN) demo.py $(ARGS)

recover: setup
	$(RUN) -m experiments.recover_theta --result results/recover_theta.json $(ARGS)

robustness: setup
	$(RUN) -m experiments.robustness $(ARGS)

signs: setup
	$(RUN) -m experiments.signs $(ARGS)

numbers: setup
	$(RUN) -m experiments.numbers $(ARGS)

rotation: setup
	$(RUN) -m experiments.rotation $(ARGS)

colocalise: setup
	$(RUN) -m experiments.colocalise $(ARGS)

doctor:
	@if $(RUN) -c pass 2>/dev/null; then $(RUN) -m common.doctor; else \
	    $(or $(PYTHON),python3) -m common.doctor; fi

TORCH := 2.13.0
bench: setup $(if $(filter --quick --print,$(ARGS)),,.venv-torch/ready-$(TORCH))
	$(RUN) -m experiments.benchmark $(ARGS)

.venv-torch/ready-$(TORCH):
	$(RUN) -m venv --clear .venv-torch
	.venv-torch/bin/python -m pip install -q torch==$(TORCH) numpy tqdm pillow
	touch $@

growth: setup
	$(RUN) -m experiments.growth $(ARGS)
