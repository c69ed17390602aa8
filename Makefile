# Everything a developer runs. `make` alone lists the targets.

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
ARGS    ?=
# Inputs for each fuzz target. CI tries a few thousand, a nightly run as many as it likes.
FUZZ ?= 50000x
BENCH    ?= .
BENCHTIME ?= 1s
# Empty: `make test` leaves the model out, for a caller that runs `make verify`.
VERIFY   ?= yes

# The tools have a module of their own, so that their dependencies never become ours.
TOOL    := go tool -modfile=.ci/tools/go.mod
LDFLAGS := -s -w -X main.version=$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help run run-3 build test generate console lint mutants tidy-check bench fuzz verify clean cluster cluster-up cluster-down chart e2e e2e-prepare

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## Build, then start trouped with its embedded runner (ARGS="--listen ...")
	@exec bin/trouped $(ARGS)

run-3: build ## Start three trouped that are one service, on loopback, and print their addresses
	@.ci/run-3

build: ## Build bin/trouped, bin/troupe, bin/troupe-runner and bin/troupe-files: static, reproducible
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/trouped ./cmd/troupe ./cmd/troupe-runner ./cmd/troupe-files

test: ## go vet, the model check where spin is installed, every test under the race detector, the other clients' tests
	@command -v "$${CC:-gcc}" >/dev/null || { echo "make test: the race detector needs a C compiler: apt-get install gcc libc6-dev" >&2; exit 1; }
	go vet ./...
	@if [ -z "$(VERIFY)" ]; then :; elif command -v spin >/dev/null; then .ci/verify; else echo "make test: spin is not installed, the model is not checked (see make verify)"; fi
	CGO_ENABLED=1 go test -race -timeout 30m ./... ./.ci/mutants
	go test -run TestSimulation ./actors/relay # ten times as many seeds as under the race detector
	@.ci/clients

generate: ## Make the code of the messages between pods again (needs protoc)
	go generate ./actors/relay

console: ## Check and bundle the page that trouped serves at / (Node 20.3, npm)
	@.ci/console

lint: ## golangci-lint: defects, style, and the import rules that are the architecture; the lists of mutants
	go run ./.ci/mutants -check
	$(TOOL) golangci-lint run ./... ./.ci/mutants
	cd e2e && go tool -modfile=../.ci/tools/go.mod golangci-lint run --config ../.golangci.yaml ./...

tidy-check: ## Fail when go.mod or go.sum are not what the imports need
	go mod tidy -diff
	cd e2e && go mod tidy -diff

bench: build ## Go benchmarks, then cmd/troupe-load, which is a benchmark too: the figures of the README (BENCH=regexp)
	go test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -benchmem ./...
	go run ./cmd/troupe-load
	@.ci/clients bench

mutants: ## Break the code one line at a time, and expect a test to notice (ARGS="-run 'gateway: '")
	go run ./.ci/mutants $(ARGS)

fuzz: ## Every fuzz target with FUZZ inputs (50000x)
	.ci/fuzz $(FUZZ)

verify: ## Check the Promela model of the process actor with spin
	.ci/verify

cluster:
	@mkdir -p bin
	cd e2e && go build -o ../bin/cluster ./cmd/cluster

cluster-up: cluster ## Start a real Kubernetes of two nodes on this machine, in a network of its own (root; Debian)
	bin/cluster packages
	bin/cluster up --nodes 2

cluster-down: cluster ## Stop it: nothing is left but its programs, images and logs
	bin/cluster down

chart: ## Render, validate and compare the Helm chart, and its README (UPDATE=1 accepts what has changed)
	cd e2e && UPDATE_GOLDEN=$(UPDATE) go test ./chart/...

e2e-prepare: build cluster ## Make what `make e2e` needs and does not test: packages, the cluster's programs, all images
	bin/cluster packages
	bin/cluster build
	bin/cluster images
	cd e2e && go run ./cmd/images

e2e: e2e-prepare ## Install troupe on a real Kubernetes, and test it through the ingress (ARGS="-run NAME")
	# Two at a time: these wait for their own servers more than they compute. A cluster is tested alone.
	cd e2e && E2E=1 go test -count=1 -p 2 -timeout 40m $$(go list ./... | grep -Ev '/e2e(/cluster)?$$') $(ARGS)
	cd e2e && E2E=1 go test -count=1 -p 1 -timeout 40m . ./cluster $(ARGS)

clean: ## Remove what the other targets made (not Go's own caches)
	rm -rf bin .cache clients/typescript/build clients/typescript/dist clients/typescript/node_modules clients/python/build
	rm -rf gateway/console/web/node_modules
	rm -f docs/model/pan* docs/model/*.trail
