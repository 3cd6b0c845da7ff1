# make build test e2e lint are what a change has to pass; .ci/run calls them.

GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)

# Its cache holds the paths of the checkout that filled it, so each checkout has its own.
GOLANGCI    = GOLANGCI_LINT_CACHE=$(CURDIR)/bin/golangci-lint-cache $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2
GOVULNCHECK = $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0

.PHONY: build help test e2e nightly lint fuzz bench microbench demo record picture notice

build: ## the binary, bin/hindsight
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o bin/hindsight ./cmd/hindsight

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'Tests that need a real Loki (or Promtail) are skipped without one. To get one, take the loki binary out of'
	@echo 'the archive of a Loki release, or copy /usr/bin/loki out of the published image grafana/loki; put it into'
	@echo 'PATH or name it in HINDSIGHT_TEST_LOKI. HINDSIGHT_TEST_REQUIRE=loki makes a missing one a failure.'

test: ## the fast tests: nothing but Go is needed
	$(GO) test -race ./...

# Tests in files with the build tag e2e. The packages that take longest come first, so that they do
# not run alone at the end.
E2E_FIRST = ./test/e2e ./watch ./sink/loki ./test/demo ./test/chaos

e2e: ## tests with a real API server, VictoriaLogs and, where installed, Loki; 20 minutes, 10 more the first time
	$(GO) run ./test/cluster/build kube victorialogs
	@echo "building helm, prometheus and promtool, unless they have been built before"
	cd test/deploy/tools && $(GO) tool -n helm >/dev/null
	cd test/observe/tools && GOFLAGS=-tags=remove_all_sd $(GO) tool -n prometheus >/dev/null
	cd test/observe/tools && GOFLAGS=-tags=remove_all_sd $(GO) tool -n promtool >/dev/null
	@files=$$(grep -rlx --include='*_test.go' '//go:build e2e' .); \
	tests=$$(sed -n 's/^func \(Test[A-Za-z0-9_]*\)(.*/\1/p' $$files | sort -u | paste -sd '|' -); \
	$(GO) run ./test/cluster/counted $(GO) test -race -tags e2e -count=1 -p 2 -timeout 60m -run "^($$tests)$$" \
		$(E2E_FIRST) $$(dirname $$files | sort -u)

lint: ## .golangci.yml's linters and formatting, and known vulnerabilities
	$(GOLANGCI) run
	$(GO) vet ./...
	@if curl -sSfo /dev/null --max-time 20 https://vuln.go.dev/index/db.json; then \
		$(GOVULNCHECK) ./...; \
	else \
		echo "govulncheck was NOT run: the Go vulnerability database cannot be reached from here"; \
	fi

nightly: ## what takes hours: large tests, long chaos, fuzz tests, benchmarks
	HINDSIGHT_TEST_NIGHTLY=1 $(GO) test -race -count=1 -timeout 60m ./...
	$(GO) test -race -tags e2e -count=1 -timeout 60m ./test/chaos -chaos.length=20m -chaos.seed=0
	$(MAKE) fuzz FUZZTIME=2m
	$(MAKE) bench microbench

FUZZTIME ?= 30s
fuzz: ## every fuzz test for a while
	@for package in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			$(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

bench: ## the whole program under load, beside the cost of decoding alone; some minutes
	$(GO) run ./test/bench

microbench: ## its parts
	$(GO) test -run '^$$' -bench . -benchmem ./...

demo: ## an outage re-enacted, exported, forgotten by the cluster and queried; two minutes, and some more the first time
	$(GO) run ./test/demo

record: ## examples/outage/events.json, from an outage that the real scheduler re-enacts
	$(GO) run ./test/outage/record

# The fonts are the machine's; with Inter (Debian: fonts-inter) it looks as in most systems.
picture: build ## docs/timeline.png, the page of the recorded outage in Chromium
	./bin/hindsight timeline -n prod-metrics --for deployment/ingester --file examples/outage/events.json \
		--from 2026-11-21T09:59:00Z --to 2026-11-21T10:01:00Z -o html > bin/timeline.html
	$(GO) run ./test/page/picture 'file://$(CURDIR)/bin/timeline.html#theme=light&from=2026-11-21T09:59:20Z&to=2026-11-21T09:59:45Z' docs/timeline.png

notice: ## NOTICE: the licences of the modules that the program links
	$(GO) run ./test/licences
