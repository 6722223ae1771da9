# What to do with this repository. `make` alone prints this list.
#
# Every target is a short script in scripts/ (or bench/), so that each can be
# read and run on its own; this file only gives them names.

PREFIX  ?= /usr/local
DESTDIR ?=

.DEFAULT_GOAL := help
.PHONY: help build demo test test-crash test-projects test-vm lint bench fuzz install uninstall clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the static binary target/release/onggi
	@scripts/build

demo: ## do everything once, from packages to a running container, and say what happened
	@scripts/demo

test: ## install what the tests need, then run the whole suite
	@scripts/test

test-projects: ## real projects built by root and a user, run by onggi and podman (minutes)
	@scripts/test-projects

test-crash: ## 2,000 kills at system calls, 800 power cuts, and 64 commands at once for two minutes (about half an hour)
	@scripts/test-crash

test-vm: ## the runtime on a host with version 2 of control groups alone, in qemu
	@scripts/test-vm

lint: ## formatting, clippy, dependency policy, shell scripts
	@scripts/lint

bench: ## compare with podman, docker and plain tools on this machine
	@bench/run

fuzz: ## run each fuzz target for a bounded time (FUZZ_SECONDS, default 60)
	@scripts/fuzz

install: ## install binary, man pages and completions (PREFIX=/usr/local, DESTDIR=)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install

uninstall: ## remove what `make install` installed
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install --remove

clean: ## remove build results
	@cargo clean
