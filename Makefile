# `make help` lists what there is. run, build and test need Go and nothing else.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 30s
CHAOS_TIME ?= 2m
SOAK_TIME ?= 1h
TOOL      = go tool -modfile=tools/go.mod

# The race detector needs a C compiler; without one the tests run all the same.
RACE := $(shell command -v "$$(go env CC)" >/dev/null 2>&1 && echo -race)

.PHONY: help build run test e2e chaos soak fuzz bench bench-balance lint package packagetest release clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 15

build: ## one static binary, bin/lb
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/lb ./cmd/lb

run: build ## see it work: config.toml before instances of its own, and some load
	bin/lb demo

test: ## vet and every test, the event loops' portable version too; some five minutes on two cores
	go vet ./...
	@test -n "$(RACE)" || echo "no C compiler: tests run without the race detector"
	go test $(RACE) -shuffle=on $(TESTFLAGS) ./...
	go test $(RACE) -shuffle=on $(TESTFLAGS) -tags lb_portable ./loop ./proxy
ifneq ($(RACE),) # which allocates, and takes its time: what counts memory, or simulates a fleet, is skipped under it
	go test -shuffle=on $(TESTFLAGS) -timeout 20m ./strategy/...
	go test -shuffle=on $(TESTFLAGS) -run 'Alloc|Memory' ./affinity ./loop ./proxy
endif

e2e: build ## the binary before real Node.js programs; needs node and npm
	cd e2e && LB_BINARY="$(CURDIR)/bin/lb" go test -count=1 -timeout 20m $(E2EFLAGS) ./...

chaos: build ## four instances killed, stopped, drained and reloaded under load, for CHAOS_TIME (2m) from CHAOS_SEED
	cd e2e && LB_BINARY="$(CURDIR)/bin/lb" CHAOS_TIME=$(CHAOS_TIME) CHAOS_SEED=$(CHAOS_SEED) go test -count=1 -timeout 0 -v -run 'TestChaos$$' .

soak: build ## steady load for SOAK_TIME (1h): nothing fails, nothing grows
	cd e2e && LB_BINARY="$(CURDIR)/bin/lb" SOAK_TIME=$(SOAK_TIME) go test -count=1 -timeout 0 -v -run 'TestSoak$$' .

fuzz: ## each fuzz target for FUZZTIME (30s)
	@set -e; for dir in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do \
		for target in $$(go test -list '^Fuzz' $$dir | grep '^Fuzz'); do \
			echo "== $$dir $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$dir; \
		done; \
	done

bench: build ## lb beside nginx and HAProxy, to bench/RESULTS.md
	go run ./bench $(BENCHFLAGS)

bench-balance: build ## who answers soonest: lb's strategies, nginx and HAProxy before busy instances, to bench/BALANCE.md; 15 minutes
	go run ./bench balance $(BENCHFLAGS)

lint: ## gofmt, go vet for Linux and macOS, staticcheck, govulncheck
	@unformatted="$$(gofmt -l $$(git ls-files '*.go'))"; \
	if [ -n "$$unformatted" ]; then echo "not formatted with gofmt:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -tags lb_portable ./...
	GOOS=darwin go vet ./...
	cd e2e && go vet ./... && GOOS=darwin go vet ./...
	$(TOOL) staticcheck ./...
	@# Exit code 3 means that something was found, others that it could not look: its database is on the internet.
	@echo "$(TOOL) govulncheck ./..."; out="$$($(TOOL) govulncheck ./... 2>&1)"; code=$$?; echo "$$out"; \
	case $$code in 0|3) exit $$code;; esac; echo "govulncheck could not look; going on without it"

package: ## .deb and .rpm for amd64 and arm64, to dist/, and tests of what is in them
	rm -f dist/*.deb dist/*.rpm
	VERSION=$(VERSION) deploy/package/build.sh
	VERSION=$(VERSION) LB_PACKAGES="$(CURDIR)/dist" go test -count=1 $(TESTFLAGS) ./deploy/package

packagetest: ## install, upgrade, remove and purge the .deb under a real systemd, booted in a directory; as root, on Debian
	deploy/package/test.sh

release: ## tarballs for Linux and macOS, to dist/, and SHA256SUMS of all that is there
	rm -f dist/*.tar.gz
	VERSION=$(VERSION) deploy/package/release.sh

clean: ## remove what was built
	rm -rf bin dist
