# make demo   the mesh on this machine, its claims proven on one screen
# make test   lint, and every test that needs no Kubernetes: plain (no root), kernel (root, network namespaces, eBPF), sanitizers, soak
# make test-cluster   tests on a real Kubernetes of two nodes on this machine (root); the first time builds Kubernetes
# make test-vm   what depends on the kernel's version on the oldest one that is promised, in emulated machines (root); ALL=1: the whole kernel lane
# make bench, make bench-disruption, make bench-soak, make bench-scale   what the mesh costs, what breaks, what grows (root)
# make kube-up, make kube-down   that Kubernetes, to try things on
# make image   the image of agent and control plane, called as in daemonset.yaml: build/image/ambient.tar, an OCI archive
# make kind   a cluster of kind with the mesh in it; docker, kind and kubectl must be there
# All others install what they need on Debian 12 or Ubuntu 24.04 (as root) and skip that the next time.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV   := .venv
PY     := $(VENV)/bin/python
NATIVE := ambient/native
STAMPS := build/stamps
PACKAGES := $(shell sed 's/\#.*//' hack/debian-packages.txt)
VM_PACKAGES := $(shell sed 's/\#.*//' hack/vm-packages.txt)
KUBE_PACKAGES := $(shell sed 's/\#.*//' hack/kube-packages.txt)
BENCH_PACKAGES := $(shell sed 's/\#.*//' hack/bench-packages.txt)
PYTEST := $(PY) -m pytest -q -p no:cacheprovider
# runs the protocol compiler; a wheel's build has its own
PYTHON := $(PY)
# at a quarter of the load of `make bench-soak`, and as many pods that come and go
SOAK_MINUTES := 5
SOAK = $(PY) -m bench.soak --minutes $(SOAK_MINUTES) --members 25 --rate 15
PROTOS := $(wildcard ambient/xds/proto/*.proto)

.PHONY: help demo test test-plain test-kernel lint native setup bench bench-control bench-scale clean format

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

demo: setup
	$(PY) -m ambient lab demo

test: setup lint test-plain test-kernel test-long

# One worker per processor: these tests share nothing. The bench is tested, too: it draws, and runs load generators.
test-plain: setup $(STAMPS)/bench
	$(PYTEST) -m "not kernel and not cluster" -n auto

# A kernel test that cannot run fails: AMBIENT_NO_SKIP turns skips into failures (tests/conftest.py). These tests have real
# deadlines on machines that others use too: one that fails is run again, and pytest's summary names it as rerun. They wait
# most of the time, so there is one process more than processors; a file, and its lab, is one process's, the long ones first.
# What measures what others would disturb comes when they are done.
KERNEL := AMBIENT_NO_SKIP=1 $(PYTEST) --reruns 2
test-kernel: setup $(STAMPS)/bench
	@[ "$$(id -u)" = 0 ] || { echo "make test-kernel: the kernel lane needs root" >&2; exit 1; }
	$(KERNEL) -m "kernel and not alone" -n $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder
	$(KERNEL) -m "kernel and alone"

# On Debian's kernel; TESTS='tests/capture ...' runs those instead.
.PHONY: test-vm
test-vm: setup $(STAMPS)/vm
	$(PY) -m hack.vm test $(if $(ALL),--all) $(TESTS)

# The cluster is one session's: brought up once, ended in any case; `make kube-down` after a session that was killed. Its
# deadlines are real, too: a test that fails is run once again, and counted as rerun.
.PHONY: test-cluster
test-cluster: kube-components image test-image
	@[ "$$(id -u)" = 0 ] || { echo "make test-cluster: the cluster lane needs root" >&2; exit 1; }
	AMBIENT_NO_SKIP=1 $(PYTEST) -m cluster --reruns 1

.PHONY: kube-components kube-up kube-down
kube-components: setup $(STAMPS)/kube
	$(PY) -m hack.kube build

kube-up: kube-components image test-image
	$(PY) -m hack.kube up build/image/*.tar

kube-down: setup
	$(PY) -m hack.kube down

.PHONY: kind
kind:
	hack/kind.sh

.PHONY: image test-image
image: $(STAMPS)/kube
	hack/image/build.sh ambient Dockerfile . "$$(hack/image/reference.sh)"

test-image: $(STAMPS)/kube
	hack/image/build.sh ambient-test-app tests/cluster/app/Dockerfile tests localhost/ambient-test-app:dev

# The soak mostly waits for pods that come and go, so it runs beside the sanitizers, which take as long.
.PHONY: test-long test-soak test-engine-sanitized test-cni-sanitized
test-long: setup
	@[ "$$(id -u)" = 0 ] || { echo "make test-long: the soak needs root" >&2; exit 1; }
	@echo "soak: for $(SOAK_MINUTES) minutes, beside the sanitizers"
	@$(SOAK) >build/soak.txt 2>&1 & soak=$$!; failed=0; \
	bash hack/engine-sanitized.sh || failed=1; bash hack/cni-sanitized.sh || failed=1; \
	wait $$soak || failed=1; cat build/soak.txt; exit $$failed

test-soak: setup
	$(SOAK)

test-engine-sanitized: setup
	bash hack/engine-sanitized.sh

test-cni-sanitized: setup
	bash hack/cni-sanitized.sh

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/clang-format --dry-run --Werror $$(git ls-files 'engine/*.[ch]' 'engine/fuzz/*.c' 'bpf/*.[ch]' 'cni/*.[ch]' 'cni/fuzz/*.c' 'hack/*.c' 'bench/*/*.c')
	shellcheck $$(git ls-files '*.sh') .ci/run

format: setup
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	$(VENV)/bin/clang-format -i $$(git ls-files 'engine/*.[ch]' 'engine/fuzz/*.c' 'bpf/*.[ch]' 'cni/*.[ch]' 'cni/fuzz/*.c' 'hack/*.c' 'bench/*/*.c')

# All modes and loads; results, pictures and the tables of docs/performance.md are written anew. `python -m bench --help`
# knows shorter forms, which leave those alone.
bench: setup $(STAMPS)/bench
	$(PY) -m bench
	$(PY) -m bench.setsockopt

# What an upgrade, a crash or an outage costs, and what is kept of what came and went; root. The second takes an hour.
.PHONY: bench-disruption bench-soak
bench-disruption: setup
	$(PY) -m bench.disruption --write

bench-soak: setup
	$(PY) -m bench.soak --write

bench-control: setup
	$(PY) -m bench.control

# On a real API server with nodes and pods that kwok plays; root. The first time builds kwok, and Kubernetes.
bench-scale: kube-components
	@[ "$$(id -u)" = 0 ] || { echo "make bench-scale: it needs root" >&2; exit 1; }
	$(PY) -m bench.control.real
	$(PY) -m bench.control.certificates

native: $(PROTOS:.proto=_pb2.py)
	@mkdir -p $(NATIVE)
	$(MAKE) -C engine OUT=$(abspath $(NATIVE))
	$(MAKE) -C bpf OUT=$(abspath $(NATIVE))
	$(MAKE) -C cni OUT=$(abspath $(NATIVE))

# pyproject.toml, because it says which compiler
%_pb2.py %_pb2.pyi: %.proto pyproject.toml
	$(PYTHON) -m grpc_tools.protoc -I . --python_out=. --pyi_out=. $<
	@touch $*_pb2.py $*_pb2.pyi

setup: $(STAMPS)/debian $(STAMPS)/venv
	@$(MAKE) --no-print-directory -s native

$(STAMPS)/debian: hack/debian-packages.txt hack/install-packages.sh
	@mkdir -p $(@D)
	bash hack/install-packages.sh $(PACKAGES)
	@touch $@

$(STAMPS)/kube: hack/kube-packages.txt hack/install-packages.sh $(STAMPS)/debian
	bash hack/install-packages.sh $(KUBE_PACKAGES)
	@touch $@

$(STAMPS)/vm: hack/vm-packages.txt pyproject.toml hack/install-packages.sh $(STAMPS)/venv
	bash hack/install-packages.sh $(VM_PACKAGES)
	$(PY) -m pip install -q --disable-pip-version-check -e '.[vm]'
	@touch $@

# An editable install: the package is this folder, its compiled parts come from `native`.
$(STAMPS)/venv: pyproject.toml hatch_build.py $(STAMPS)/debian
	@mkdir -p $(@D)
	@echo "setup: Python packages into $(VENV)"
	python3 -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	python3 -m venv $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check -e '.[dev,waypoint]'
	@touch $@

$(STAMPS)/bench: hack/bench-packages.txt hack/install-packages.sh pyproject.toml $(STAMPS)/venv
	bash hack/install-packages.sh $(BENCH_PACKAGES)
	$(PY) -m pip install -q --disable-pip-version-check -e '.[bench]'
	@touch $@

clean:
	rm -rf build $(NATIVE) ambient/xds/proto/*_pb2.py*
