# make build    the static binary
# make demo     two nodes, a witness and a client on this machine, in under a minute (root)
# make bench    the demo's figures as medians of RUNS (5) beside those of other cluster managers (root)
# make bench-sigstop   the active daemon frozen RUNS times (50) with default and fast timing: answers from both hosts, outages (root)
# make check    format, vet, staticcheck, unit tests, race detector; the quicker half of test
# make test     all that CI runs: check, and the suite on hosts of namespaces, with real apache2 and systemd, and on virtual
#               machines where QEMU can be installed (root)
# make test-vm  the virtual machines alone: the gate on VLANs and bonds, real watchdogs, DRBD (root)
# make sim      N (1000) simulated clusters of two minutes that nobody has run before, or from seed FROM; `make soak` goes
#               on until stopped; `make mutants` plants bugs on purpose and demands that the simulator finds each
# make fuzz     each fuzz target for FUZZTIME (10s)

SHELL := /bin/bash
PACKAGES = apache2 iproute2 nftables e2fsprogs util-linux mmdebstrap shellcheck
VM_PACKAGES = qemu-system-x86 qemu-utils openssh-client cpio xz-utils mmdebstrap e2fsprogs iproute2 util-linux
FUZZTIME ?= 10s
N ?= 1000
FROM ?= $(shell date +%s)
export CGO_ENABLED = 0

.PHONY: build lab demo bench bench-sigstop check lint unit race test test-vm suite sim soak mutants fuzz clean setup setup-vm

build:
	go build -trimpath -o hactl .

setup:
	lab/setup $(PACKAGES)

setup-vm:
	@lab/setup $(VM_PACKAGES) || echo "not all of $(VM_PACKAGES) can be installed: the tests on virtual machines are skipped"

# What demo and bench run: the same binary, the client's probe, and a web server for where apache2 is missing.
lab:
	@lab/setup iproute2 util-linux
	@mkdir -p build
	go build -trimpath -o build/ . ./lab/probe ./lab/webserver

demo: lab
	@lab/demo

bench: lab
	@lab/bench

bench-sigstop:
	@lab/setup iproute2 nftables util-linux
	HACTL_SIGSTOP=$${RUNS:-50} go test -count 1 -v -timeout 40m -run '^TestClusterSigstop$$' . | grep -v '^=== '; exit $${PIPESTATUS[0]}

check: lint unit race

lint:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt would change: $$out"; exit 1; fi
	go vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...
	@if [ -x "$$(type -P shellcheck)" ]; then shellcheck -x .ci/run lab/setup lab/gotest lab/demo lab/bench lab/hosts.sh lab/cluster.sh lab/image lab/systemd lab/vm lab/vm-image lab/vm-init; \
	  else echo "shellcheck is not installed: the scripts are not looked at"; fi

unit:
	lab/gotest -short -timeout 10m ./...

race:
	CGO_ENABLED=1 lab/gotest -short -race -timeout 15m .

test: setup setup-vm lint race
	lab/gotest -timeout 40m ./...

suite: setup
	lab/gotest -timeout 40m -run 'TestCluster|TestSystemd' .

test-vm: setup setup-vm
	lab/gotest -timeout 30m -run 'TestVM' .

sim:
	lab/gotest -timeout 0 -run 'TestSimulator$$' . -sim.runs=$(N) -sim.from=$(FROM)

soak:
	go test -v -timeout 0 -run 'TestSimulator$$' . -sim.soak=10000h

mutants:
	lab/gotest -timeout 0 -run 'TestMutants$$' . -sim.mutants

fuzz:
	@for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' *_test.go | sed 's/^func //'); do \
	  echo "$$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) . | tail -n 1 || exit 1; done

clean:
	rm -rf hactl build
	go clean -testcache
