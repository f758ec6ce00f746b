# The front door. `make demo` and `make test` install what they need by themselves, under ~/.cache/serinus.
#
#   make demo      a fraud model on a real cluster: v2 is promoted, v3 rolled back, v4 and v5 rejected (pictures in build/demo)
#   make test      all of lint, unit, compiled-core, providers, torch, api and e2e, one after the other (KEEP=1 leaves the cluster up)
#   make unit      pure logic and the runtime: seconds, needs nothing
#   make compiled  the runtime's tests again, on the package that mypyc has compiled; make compiled-core: the chief of them
#   make providers ONNX Runtime with OpenVINO instead of its own CPU code; the first run downloads 85 MB
#   make torch     PyTorch and TorchServe behind the runtime; the first run downloads 300 MB
#   make api       against a real kube-apiserver
#   make e2e       against a real node (CLUSTER=existing|kind|node)
#   make lint      ruff, mypy, generated files current
#   make crds      regenerate crds/, the chart's copy and the reference pages
#   make lock      recompile the lock files from requirements/*.in
#   make bench-runtime, bench-grpc, bench-overload, bench-operator, bench-verdicts, bench-experiment, bench-exposure,
#        bench-joiner, bench-mirror, bench-path   measurements; each ends with a RESULT line
#   make bench-exposure   Serinus beside Flagger on one cluster: users that a bad version reaches (ARGS=--quick)
#   make matrix   each strategy, each kind of candidate, each disturbance on a real cluster under load
#   make fuzz      coverage-guided fuzzing of what reads strangers' bytes (FUZZ_SECONDS=60 for each target)
#   make down      stop the test cluster; nothing stays behind
MAKEFLAGS += --no-print-directory
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: demo test unit compiled compiled-core providers torch api e2e lint crds lock down up bench-operator bench-path bench-runtime bench-grpc bench-overload fuzz

PYTHON_ENV = $$(tests/bootstrap.sh)
export PYTHONPATH := tests:operator:runtime-image:examples/fraud-scoring
export PYTHONDONTWRITEBYTECODE := 1
# ONNX Runtime sends usage data unless told not to.
export ORT_DISABLE_TELEMETRY := 1
# Hypothesis tries the same examples each time (tests/conftest.py); SERINUS_SAME_EXAMPLES=0 makes it look for new ones.
export SERINUS_SAME_EXAMPLES ?= 1
STAGE = tests/stage.sh

demo:
	@$(STAGE) demo $(PYTHON_ENV) -m fraud.demo

test:
	@$(STAGE) --begin
	@for stage in lint unit compiled-core providers torch api e2e; do \
		$(MAKE) $$stage || { code=$$?; $(STAGE) --summary; exit $$code; }; \
	done
	@[ -n "$$KEEP" ] || $(MAKE) down
	@$(STAGE) --summary

lint:
	@$(STAGE) lint tests/lint.sh $(PYTHON_ENV)

unit:
	@$(STAGE) unit $(PYTHON_ENV) -m pytest -q tests/unit

COMPILED_TESTS := tests/unit/runtime
compiled compiled-core:
	@built=$$($(PYTHON_ENV) -m cluster package) && \
		SERINUS_RUNTIME_BUILD=$$built $(STAGE) $@ $(PYTHON_ENV) -m pytest -q $(COMPILED_TESTS)

# What every request goes through; the package is made for the image anyway.
compiled-core: COMPILED_TESTS := $(patsubst %,tests/unit/runtime/test_%.py,inference batching binary http process grpc_messages proxy proxy_tunnel)

providers:
	@$(STAGE) providers $(PYTHON_ENV) -m pytest -q tests/providers

torch:
	@$(STAGE) torch $(PYTHON_ENV) -m pytest -q tests/pytorch

api:
	@SERINUS_REQUIRE_CLUSTER=1 $(STAGE) api $(PYTHON_ENV) -m pytest -q tests/api

e2e:
	@SERINUS_REQUIRE_CLUSTER=1 $(STAGE) e2e $(PYTHON_ENV) -m pytest -q tests/e2e

bench-runtime:
	@$(STAGE) bench-runtime $(PYTHON_ENV) -m bench.runtime

bench-grpc:
	@$(STAGE) bench-grpc $(PYTHON_ENV) -m bench.runtime.grpc

bench-overload:
	@$(STAGE) bench-overload $(PYTHON_ENV) -m bench.runtime.overload

.PHONY: bench-joiner bench-mirror
bench-joiner:
	@$(STAGE) bench-joiner $(PYTHON_ENV) -m bench.joiner

bench-mirror:
	@$(STAGE) bench-mirror $(PYTHON_ENV) -m bench.mirror

.PHONY: bench-experiment
bench-experiment:
	@$(STAGE) bench-experiment $(PYTHON_ENV) -m bench.experiment

.PHONY: bench-verdicts
bench-verdicts:
	@$(STAGE) bench-verdicts $(PYTHON_ENV) -m bench.verdicts

.PHONY: bench-exposure matrix
matrix:
	@$(STAGE) matrix $(PYTHON_ENV) -m bench.matrix $(ARGS)

bench-exposure:
	@$(STAGE) bench-exposure $(PYTHON_ENV) -m bench.exposure $(ARGS)

bench-path:
	@$(STAGE) bench-path $(PYTHON_ENV) -m bench.path

bench-operator:
	@$(STAGE) bench-operator $(PYTHON_ENV) -m bench.operator

fuzz:
	@$(STAGE) fuzz $(PYTHON_ENV) -m fuzz $${FUZZ_SECONDS:-60}

up:
	@$(PYTHON_ENV) -m cluster up

down:
	@$(PYTHON_ENV) -m cluster down

crds:
	@$(PYTHON_ENV) -m serinus.api.crd

lock:
	@tests/lock.sh
