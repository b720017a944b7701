# The commands of the house. Each installs what it needs first, quietly when nothing is missing.
.PHONY: help setup setup-guests demo test test-full test-unit bench lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## what the CLI and the tests without guests need
	@tools/setup

setup-guests: ## also QEMU, QuickJS and three kernels, into the cache folder
	@tools/setup guests

demo: setup-guests ## the main job: a real Linux guest behind a policy, and the same guest without the gate
	@./airlock lab up --policy policies/lab.yaml --compare

test: setup-guests ## all tests, real guests included
	@tools/node --test --test-reporter=spec "packages/*/test/**/*.test.ts" "test/**/*.test.ts"

test-full: setup-guests ## also the guests that make test leaves out: every device on every kernel, long runs
	@tools/node --test --test-reporter=spec "packages/*/test/**/*.test.ts" "packages/*/test/**/*.full.ts" "test/**/*.test.ts"

test-unit: setup ## tests that need no guest
	@AIRLOCK_NO_GUESTS=1 tools/node --test --test-reporter=spec "packages/*/test/**/*.test.ts" "test/**/*.test.ts"

bench: setup-guests ## our side and the peer's, in turn, with the ratio
	@tools/node bench/run.ts

lint: setup ## types, format, house rules
	@tools/node node_modules/typescript/bin/tsc --noEmit
	@tools/node node_modules/@biomejs/biome/bin/biome ci --error-on-warnings --colors=off .

format: setup ## put every file into the house's format
	@tools/node node_modules/@biomejs/biome/bin/biome check --write --colors=off .

clean: ## what was built here; the cache folder stays
	@rm -rf build coverage
