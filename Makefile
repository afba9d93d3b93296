# `make` alone lists the targets. Everything runs in the locked environment that `setup` makes.
SHELL := /bin/bash
PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.cache/uv/bin:$(PATH)
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down demo-status demo-retrain quickstart test test-unit test-long test-slow verify format crds images clean-caches

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## install uv when missing, and the locked Python environment
	@scripts/setup

# The compiler needs no environment, and most of a cold start: it begins while the environment is installed.
.PHONY: begin-builds
begin-builds:
	@[ -n "$$KUBECONFIG" ] || python3 -m devcluster build --background >/dev/null 2>&1 || true

demo: begin-builds setup ## the whole loop on a real Kubernetes node, or on the cluster of KUBECONFIG: posts, training, live answers
	@$(PYTHON) -m demo up

demo-status: setup ## what runs, where to look
	@$(PYTHON) -m demo status

demo-retrain: setup ## change one post, watch a new run learn its new fact
	@$(PYTHON) -m demo retrain

demo-down: setup ## end everything that the demo started
	@$(PYTHON) -m demo down

quickstart: setup ## the same story without any cluster, ending in the chat page on localhost
	@$(PYTHON) -m demo quickstart

test: setup ## unit tests, then tests on the real WordPress, Weaviate, S3, Kubernetes and browser
	@scripts/test

# What loads torch, builds datasets whole or renders the chart in every test; `make test-unit` would be minutes with it.
LONG_TESTS := $(addprefix tests/,charts devcluster/test_convert_base_model.py $(addprefix finetune_trainer/,\
	evaluation packaging training $(addprefix dataset/,knowledge_base/test_sentence_model.py $(addprefix test_,\
	bad_input.py build.py drafts_on_disk.py guarded_build.py make_examples.py))))
REAL_TESTS := $(addprefix tests/,together on_cluster in_browser)
UNIT_TESTS := OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n auto --dist loadfile -m "not slow"

test-unit: setup ## the short unit tests, in seconds: no root, no services, no network, no model
	@$(UNIT_TESTS) $(addprefix --ignore=,$(LONG_TESTS) $(REAL_TESTS)) tests

test-long: setup ## the other unit tests: tiny models are trained, datasets built whole, the chart rendered; minutes
	@$(UNIT_TESTS) $(LONG_TESTS)

test-slow: setup ## what is too slow for every change: ten thousand generated lives of a run
	@$(PYTHON) -m pytest -m slow

verify: setup ## rules, types, import contracts, generated files, chart
	@scripts/verify

format: setup ## let ruff put the code in order
	@.venv/bin/ruff check --fix-only --quiet . ; .venv/bin/ruff format --quiet .

crds: setup ## write the CRDs from the contract's models
	@.venv/bin/finetune-crds

clean-caches: ## remove the built programs and the base model, shared by all clones
	@$(PYTHON) -m devcluster clean-caches
