# make build    the static binary
# make demo     two nodes, a witness and a client on this machine, in under a minute (root)
# make bench    what a client sees of failures and moves, as medians of RUNS (5), with hactl and with other cluster managers on
#               the same hosts (root; takes long); PEERS="hactl:default keepalived:fast" measures some alone. Then what an hour
#               of a simulated cluster costs, and a grant
# make bench-sigstop   the active daemon frozen RUNS times (50) with default and fast timing: answers from both hosts, outages (root)
# make sigstop  each daemon frozen for 0.5 to 30 s, ROUNDS (3) times through the series, with a witness and with two nodes (root)
# make chaos    random faults for FOR (30m) from SEED (a fresh one) on two nodes and a witness that are written to; prints the outages
#               by kind of fault; ^C ends it and leaves nothing behind (root)
# make check    format, vet, staticcheck, unit tests, race detector; the three-minute part of test
# make test     all that CI runs: check, and the suite on hosts of namespaces, with real apache2 and systemd, and on virtual
#               machines where QEMU can be installed (root)
# make test-vm  the virtual machines alone: the gate on VLANs and bonds, real watchdogs, DRBD (root)
# make sim      N (1000) simulated clusters of two minutes that nobody has run before, or from seed FROM; `make soak` goes
#               on until stopped; `make mutants` plants bugs on purpose and demands that the simulator finds each
# make deb rpm  the packages, into build/: VERSION is CHANGELOG.md's unless it is given, GOARCH this machine's
# make fuzz     each fuzz target for FUZZTIME (10s)

SHELL := /bin/bash
PACKAGES = apache2 iproute2 nftables e2fsprogs util-linux mmdebstrap shellcheck zsh fish groff lintian rpm
VM_PACKAGES = qemu-system-x86 qemu-utils openssh-client cpio xz-utils mmdebstrap e2fsprogs iproute2 util-linux
FUZZTIME ?= 10s
N ?= 1000
FROM ?= $(shell date +%s)
VERSION ?= $(shell packaging/changelog version)
GOARCH ?= $(shell go env GOARCH)
# Without inlining (but in the runtime), without symbols and without the library's own manual pages: a third smaller.
RELEASE = -trimpath -tags urfave_cli_no_docs -gcflags=all=-l -gcflags=runtime/...= -gcflags=internal/runtime/...=
export CGO_ENABLED = 0

.PHONY: build lab demo bench bench-sigstop sigstop chaos check lint unit race race-suite test test-vm suite sim soak mutants fuzz clean setup setup-vm package deb rpm

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
	@lab/setup iproute2 util-linux mmdebstrap
	@lab/bench $(PEERS)
	@GOGC=1600 go test -run '^$$' -bench SimulatedHour -benchtime 1x .
	@go test -run '^$$' -bench '^BenchmarkGrant$$' .

bench-sigstop:
	@lab/setup iproute2 nftables util-linux
	HACTL_SIGSTOP=$${RUNS:-50} go test -count 1 -v -timeout 40m -run '^TestClusterSigstop$$' . | grep -v '^=== '; exit $${PIPESTATUS[0]}

sigstop:
	@lab/setup iproute2 nftables util-linux
	lab/gotest -count 1 -timeout 0 -run '^TestClusterFrozenFor$$' . -frozen.rounds=$${ROUNDS:-3}

chaos:
	@lab/setup iproute2 nftables util-linux
	@exec lab/chaos

# Unit tests and race detector mostly wait, so they run side by side.
check: lint
	@$(MAKE) --no-print-directory -j2 -O unit race

lint:
	@out=$$(gofmt -l .); if [ -n "$$out" ]; then echo "gofmt would change: $$out"; exit 1; fi
	go vet ./...
	go tool -modfile=tools/go.mod staticcheck ./...
	@if [ -x "$$(type -P shellcheck)" ]; then shellcheck -x .ci/run lab/setup lab/gotest lab/demo lab/bench lab/peer lab/peers/*.sh lab/chaos lab/hosts.sh lab/cluster.sh lab/image lab/systemd lab/systemd.sh lab/vm lab/vm-image lab/vm-init packaging/notices packaging/changelog packaging/deb/* packaging/rpm/*; \
	  else echo "shellcheck is not installed: the scripts are not looked at"; fi

unit:
	lab/gotest -short -timeout 10m ./...

# Stories, simulator and small scope are one goroutine, in which the detector has nothing to find but takes ten times as long.
race:
	CGO_ENABLED=1 lab/gotest -short -race -timeout 15m -skip '^Test(Stories|Simulator|SmallScope)$$' .

# The daemon itself under the race detector, in some situations of the suite.
race-suite: setup
	CGO_ENABLED=1 go build -race -o build/race/hactl .
	rm -f build/race/found.*
	GORACE=log_path=$(CURDIR)/build/race/found HACTL_BINARY=$(CURDIR)/build/race/hactl lab/gotest -timeout 15m \
	  -run '^TestCluster(Move|HttpdCrashes|DaemonKilled|Edits|KeyRoll|Leave|FencePair|ThreeFull)$$' .
	@if cat build/race/found.* 2>/dev/null; then echo "the race detector has found these in the daemon"; exit 1; fi

test: setup setup-vm lint race race-suite
	lab/gotest -timeout 75m ./...

suite: setup
	lab/gotest -timeout 40m -run 'TestCluster|TestSystemd' .

test-vm: setup setup-vm
	lab/gotest -timeout 30m -run 'TestVM' .

sim:
	lab/gotest -timeout 0 -run 'TestSimulator$$' . -sim.runs=$(N) -sim.from=$(FROM)

soak:
	go test -v -timeout 0 -run 'TestSimulator$$' . -sim.soak=10000h

mutants:
	lab/gotest -timeout 0 -run 'TestMutants$$' . -sim.record

# What is in the packages. The pages and the completion come from the program, so from one that runs here.
package:
	rm -rf build/package
	mkdir -p build/package
	GOARCH= go build -ldflags '-X main.version=$(VERSION)' -o build/package/here . # what prints the pages, on this machine
	GOARCH=$(GOARCH) go build $(RELEASE) -ldflags '-s -w -X main.version=$(VERSION)' -o build/package/hactl .
	sed 's,/usr/local/sbin/,/usr/sbin/,' packaging/ha.service >build/package/ha.service
	cd build/package && for page in hactl.8 ha.toml.5; do ./here man "$${page%.?}" | gzip -9n >"$$page.gz"; done
	cd build/package && for shell in bash zsh fish; do ./here completion $$shell >hactl.$$shell; done
	packaging/changelog | gzip -9n >build/package/changelog.gz
	packaging/notices >build/package/copyright
	GOARCH= go build -modfile=tools/go.mod -o build/nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm

deb rpm: package
	VERSION=$(VERSION) GOARCH=$(GOARCH) build/nfpm package --config packaging/nfpm.yaml --packager $@ --target build/

fuzz:
	@for f in $$(grep -ho '^func Fuzz[A-Za-z0-9]*' *_test.go | sed 's/^func //'); do \
	  echo "$$f"; go test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) . | tail -n 1 || exit 1; done

clean:
	rm -rf hactl build
	go clean -testcache
