# make build    the static binary
# make demo     two nodes, a witness and a client on this machine, in under a minute (root)
# make check    format, vet, staticcheck, unit tests, race detector: about three minutes
# make test     all that CI runs: check, and the suite in network namespaces with real apache2 (root)
# make fuzz     each fuzz target for FUZZTIME (10s)

SHELL := /bin/bash
PACKAGES = apache2 iproute2 nftables e2fsprogs util-linux
FUZZTIME ?= 10s
export CGO_ENABLED = 0

.PHONY: build demo check lint unit race test suite fuzz clean setup

build:
	go build -trimpath -o hactl .

setup:
	lab/setup $(PACKAGES)

demo:
	lab/setup iproute2 util-linux
	lab/demo

check: lint unit race

lint:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt would change: $$out"; exit 1; fi
	go vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...

unit:
	lab/gotest -short -timeout 10m ./...

race:
	CGO_ENABLED=1 lab/gotest -short -race -timeout 15m .

test: setup lint race
	lab/gotest -timeout 40m ./...

suite: setup
	lab/gotest -timeout 40m -run 'TestCluster' .

fuzz:
	@for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' *_test.go | sed 's/^func //'); do \
	  echo "$$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) . | tail -n 1 || exit 1; done

clean:
	rm -f hactl
	go clean -testcache
