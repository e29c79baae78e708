# `make help` lists the targets. They take variables: make demo CLUSTER=current REGISTRY=registry.example.com/team

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# Which cluster: empty is one of our own on this machine; `current` is that of the current kubeconfig context.
CLUSTER ?=
# Where images are pushed when they can't be loaded into the nodes of that cluster, HOST/PATH.
REGISTRY ?=
# Architecture of the cluster's nodes.
ARCH ?= $(shell go env GOARCH)
# Domain of previews: with one, the gateway is installed too.
GATEWAY ?=
# How long each fuzz target runs, and for how many seconds `make soak` goes on.
FUZZTIME ?= 30s
SOAK ?= 3600
# Which sequences `make ordinary` draws, for how long it performs them, and how many at a time.
SEED ?= 1
DURATION ?= 1h
LANES ?= 2
# How often `make demo-experiment` and `make check-alarms` run.
RUNS ?= $(if $(filter check-alarms,$(MAKECMDGOALS)),20,1)
# How many load checks `make simulate` simulates on each recording.
SIMULATIONS ?= 2000

# Programs of all targets come from bin/ first.
export PATH := $(CURDIR)/bin:$(PATH)
ifeq ($(CLUSTER),current)
cluster-up :=
target := -registry=$(REGISTRY)
else
cluster-up := cluster
target := -own=$(CURDIR)/bin/cluster
export KUBECONFIG := $(CURDIR)/.cluster/kubeconfig
endif

# The version is that of the tag here, or a function of the sources that go into the programs: changed code has another tag,
# and the same code the same.
sources = git ls-files -co --exclude-standard cmd plugin webhook go.mod go.sum | grep -v _test.go | LC_ALL=C sort
ifndef VERSION
VERSION := $(shell git describe --exact-match --tags --dirty 2>/dev/null | grep -v dirty || \
	echo $$(sed -n 's/^appVersion: //p' charts/sandbox/Chart.yaml)-dev.$$($(sources) | xargs ls -d 2>/dev/null | \
		git hash-object --stdin-paths | git hash-object --stdin | cut -c1-10))
endif
LDFLAGS := -s -w -X main.version=$(VERSION)

##@ Product

.PHONY: build
build: ## Build the plugin into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags='$(LDFLAGS)' -o bin/kubectl-sandbox ./cmd/kubectl-sandbox

repository := $(or $(REGISTRY),ghcr.io/kubectl-sandbox)
images := dist/images/$(VERSION)

archives := $(patsubst %,$(images)/%.tar,sandbox-webhook sandbox-router sandbox-probe kubectl-sandbox)

.PHONY: images
images: $(archives) ## Build the images of webhook, router, probe and plugin

$(images)/%.tar: | bin/cluster
	@mkdir -p $(images)
	CGO_ENABLED=0 GOOS=linux GOARCH=$(ARCH) go build -trimpath -ldflags='$(LDFLAGS)' -o $(images)/$* ./cmd/$*
	bin/cluster image --name=$(repository)/$*:$(VERSION) --binary=$(images)/$* --output=$@

.PHONY: install
install: $(cluster-up) images build bin/helm ## Install the chart into the cluster
	go -C test run ./cmd/deliver $(target) $(abspath $(archives))
	bin/helm upgrade --install sandbox charts/sandbox --namespace=kubectl-sandbox --create-namespace \
		--set=image.registry=$(repository) --set=image.tag=$(VERSION) \
		$(if $(GATEWAY),--set=gateway.enabled=true --set=gateway.domain=$(GATEWAY)) --wait --timeout=3m

.PHONY: demo
demo: install ## Show it all at work on HotROD, and leave it there to try
	go -C test run ./demo -root=.. $(target)

.PHONY: uninstall
uninstall: bin/helm ## Remove the chart from the cluster
	bin/helm uninstall sandbox --namespace=kubectl-sandbox --wait

.PHONY: krew
krew: ## Build the krew archives and manifest into dist/krew
	go -C test run ./cmd/krew -root=.. -out=$(CURDIR)/dist/krew -version=$(VERSION)

##@ Cluster

# Built by the tests' module: the product's own has no need of what it takes.
bin/cluster: $(shell find test/cluster -name '*.go' -not -path '*/programs/*' -o -path 'test/cluster/config/*' -type f) test/go.mod test/go.sum
	go -C test build -o ../$@ ./cluster/cmd/cluster

.PHONY: cluster
cluster: bin/cluster ## Bring up a real Kubernetes on this machine (Linux, root); kubeconfig in .cluster/kubeconfig
	bin/cluster up $(UP)

# The cluster's programs, for tests that need them and no cluster.
ifeq ($(CLUSTER),current)
bin/helm:
	go -C test/cluster/programs/helm build -o $(CURDIR)/$@ helm.sh/helm/v4/cmd/helm
else
bin/helm bin/kubectl: | $(cluster-up)
endif

.PHONY: cluster-down
cluster-down: bin/cluster ## End it, and remove all it has left
	bin/cluster down

##@ Checks

.PHONY: test
test: lint unit check-cluster check-chart check-krew e2e ## Run all tests (CI=true: their short form)

modules := . test test/cluster/programs/node test/cluster/programs/pause test/appliers/flux test/appliers/argocd

.PHONY: lint
lint: bin/golangci-lint ## Format, vet and lint every module, and hold its go.mod tidy
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs ls -d 2>/dev/null | xargs gofmt -l); \
		[ -z "$$unformatted" ] || { echo "not formatted: $$unformatted"; exit 1; }
	@for module in $(modules); do echo "lint $$module"; (cd $$module && go mod tidy -diff && go vet ./... && golangci-lint run --allow-parallel-runners ./...); done

bin/golangci-lint: test/tools/go.mod
	go -C test/tools build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

.PHONY: unit
unit: debian nginx ## Run the tests that need no cluster, under the race detector
	go test -race ./...
	go -C test test -race ./architecture/... ./audit/... ./delivery/... ./readme/... ./policies/... ./probe/... ./cluster/... ./demo/... ./ordinary/...

.PHONY: check-cluster
check-cluster: $(cluster-up) ## Bring clusters up and down in namespaces of their own, over wrecks and beside another clone's
	go -C test test -count=1 -tags=cluster -timeout=20m ./cluster

.PHONY: check-chart
check-chart: bin/helm bin/promtool ## Lint, render and judge the chart, and test its alerts
	bin/helm lint --strict charts/sandbox
	go -C test test ./chart/...

# Prometheus' own judge of rules: a module apart, since its dependencies are those of a whole server. Without service discovery, which
# judges no rule and takes the libraries of twenty clouds.
bin/promtool: test/chart/promtool/go.mod
	go -C test/chart/promtool build -trimpath -tags=remove_all_sd -o $(CURDIR)/$@ github.com/prometheus/prometheus/cmd/promtool

.PHONY: check-krew
check-krew: bin/kubectl ## Build the krew archives, hold them to krew's rules, and install one
	go -C test test -count=1 -timeout=60m $(if $(CI),-short) ./krew/...

.PHONY: e2e
e2e: install debian browser playwright nginx ## Run the end-to-end tests on the cluster
	go -C test test -count=1 -timeout=60m -parallel=4 $(if $(CI),-short) ./e2e/...

.PHONY: soak
soak: install browser playwright nginx ## Run them in random order, again and again, for SOAK seconds
	@until [ $$SECONDS -ge $(SOAK) ]; do go -C test test -count=1 -shuffle=on -timeout=60m -parallel=4 ./e2e/...; done

.PHONY: ordinary
ordinary: install ## Do ordinary work at random for DURATION, and find broken promises (SEED=1 DURATION=1h LANES=2)
	go -C test run ./cmd/ordinary -root=.. -seed=$(SEED) -duration=$(DURATION) -lanes=$(LANES) -report=ordinary/README.md

.PHONY: demo-experiment
demo-experiment: install ## Show an experiment of five variants, and hold its verdicts to what they must be (RUNS=1)
	go -C test run ./demo/experiment -root=.. -runs=$(RUNS) -out=$(CURDIR)/dist/experiment $(target)

.PHONY: check-alarms
check-alarms: install ## Run experiments of variants that equal the baseline, and count false alarms (RUNS=20)
	go -C test run ./demo/experiment -root=.. -alarms -runs=$(RUNS) -out=$(CURDIR)/dist/alarms $(target)

.PHONY: scale
scale: install ## Fork 300 times at once, by 10 callers in 10 namespaces (e2e: 40 times)
	E2E_SCALE=300 go -C test test -count=1 -v -timeout=30m -run=TestManyForks ./e2e

.PHONY: bench
bench: install nginx ## Measure how long a fork takes, and what the ways into a sandbox add to a request, beside nginx
	go -C test run ./bench -root=..

.PHONY: fuzz
fuzz: ## Fuzz every parser for FUZZTIME
	@grep -rHo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' cmd plugin webhook | sed 's/:func / /' | while read -r file target; do \
		go test "./$$(dirname $$file)" -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZTIME) </dev/null || exit 1; done

.PHONY: simulate
simulate: ## Simulate load checks on recorded latencies: false alarms and power
	go test -count=1 -v -timeout=2h -run=TestSimulations ./plugin/experiment/stats -simulate=$(SIMULATIONS)

.PHONY: docs
docs: ## Write the tables of flags and of values into the documents
	go -C test test ./readme -run TableOfValues\|TablesOfFlags -update

##@ Machine

# A C compiler, for the race detector, curl, for the README's tour, and Python, whose client reads what the router passes on: nothing
# else of this Makefile takes them.
.PHONY: debian
debian:
	@missing=$$(for c in gcc curl python3; do command -v $$c >/dev/null || echo $$c; done); [ -z "$$missing" ] || { apt-get update -q; \
		DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends $$missing libc6-dev ca-certificates; }

# Started by benchmarks and tests alone: not by the package, on machines where that would.
.PHONY: nginx
nginx:
	@command -v nginx >/dev/null || { apt-get update -q; \
		RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends nginx-light; }

# Chromium, and what pages under test take from the web; npm checks that it is what the lock file pins.
.PHONY: browser
browser: test/browser/node_modules/.package-lock.json
	@command -v chromium >/dev/null || { apt-get update -q; \
		DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends chromium fonts-dejavu-core; }

test/browser/node_modules/.package-lock.json: test/browser/package-lock.json
	@command -v npm >/dev/null || { apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends npm; }
	npm ci --prefix=test/browser --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: playwright
playwright: browser test/playwright/node_modules/.package-lock.json

test/playwright/node_modules/.package-lock.json: test/playwright/package-lock.json
	npm ci --prefix=test/playwright --ignore-scripts --no-audit --no-fund
	@touch $@

.PHONY: clean
clean: ## Remove what was built here (the cluster is ended by cluster-down)
	rm -rf bin dist test/browser/node_modules test/playwright/node_modules

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile
