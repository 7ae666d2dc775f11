# meta9's build. `make` alone lists what there is to make. Nothing but Go is
# needed; what the tests need of Debian they install as root, and say so.

GO       ?= go
FUZZTIME ?= 20s
FUZZLOG  ?= bin/fuzz.log
FUZZJOBS ?= 2
BENCH    ?=
SECTIONS ?= check cross-quick unit blackbox test-guest test-fleet fuzz
BASE     ?=
SOAK     ?=
SOAKTIME ?= 45m
DEBS     ?= dist
DEBARCHS ?= amd64 arm64

GOFUMPT     := .tools/gofumpt-v0.12.0
STATICCHECK := .tools/staticcheck-v0.8.2
ERRCHECK    := .tools/errcheck-v1.30.0
INEFFASSIGN := .tools/ineffassign-v0.2.0
MISSPELL    := .tools/misspell-v0.3.4
CYCLONEDX   := .tools/cyclonedx-gomod-v1.10.0
NFPM        := .tools/nfpm-v2.45.2

# go test through tests/runner, which says at its end what was skipped, and why.
RUNNER := $(CURDIR)/bin/runner
GOTEST := $(RUNNER) test

# What the programs say that they are. Without VERSION it is what the Go toolchain
# sees of git: the tag, or the commit. Who builds without git's history names it.
VERSION ?=
LDFLAGS := -s -w $(if $(VERSION),-X meta9/cmd/version.named=$(VERSION))

.DEFAULT_GOAL := help
.PHONY: help build run run-fleet quick quick-timed quick-check quick-test test unit blackbox test-guest test-fleet check fuzz soak bench bench-guest fleet-size docs clean cc runner cross cross-quick release deb

help: ## list the targets
	@awk -F ': .*## ' '/^[a-z-]+: .*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build bin/meta9d and bin/meta9, static
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -ldflags="$(LDFLAGS)" -o bin/ ./cmd/meta9d ./cmd/meta9

# What make cross and make release build. The client is for guests of any kind;
# meta9d runs on Linux. meta9 mount is Linux's too: elsewhere it says so.
CLIENTS := linux/amd64 linux/arm64 linux/386 linux/arm linux/riscv64 darwin/amd64 darwin/arm64 \
	freebsd/amd64 freebsd/arm64 openbsd/amd64 windows/amd64 windows/arm64 plan9/amd64 plan9/386
DAEMONS := linux/amd64 linux/arm64 linux/386 linux/arm linux/riscv64

cross: ## build meta9 and meta9d for every system that they run on, into bin/cross
	@rm -rf bin/cross; set -eu; one() { \
		echo "$$1 $$2"; \
		GOOS=$${2%/*} GOARCH=$${2#*/} CGO_ENABLED=0 $(GO) build -trimpath -ldflags="$(LDFLAGS)" -buildvcs=auto -o bin/cross/$$2/ ./cmd/$$1; \
	}; \
	for t in $(CLIENTS); do one meta9 $$t; done; \
	for t in $(DAEMONS); do one meta9d $$t; done

cross-quick: ## of make cross, the client for three systems: what make test has of it
	@$(MAKE) --no-print-directory cross CLIENTS="freebsd/amd64 windows/amd64 linux/386" DAEMONS=
	GOOS=freebsd $(GO) vet ./session/keep/fusefs

# The commit's tag, or what meta9 version says; a changed tree cannot be released.
release: $(CYCLONEDX) $(NFPM) cross ## archives, packages, checksums and bills of materials of this commit, into dist
	@set -eu; test -z "$$(git status --porcelain)" || { echo "release: the tree has changes that are not committed"; git status --short; exit 1; }; \
	version="$(VERSION)"; version=$${version:-$$(bin/cross/$$($(GO) env GOHOSTOS)/$$($(GO) env GOHOSTARCH)/meta9 version | cut -d' ' -f2)}; \
	LDFLAGS="$(LDFLAGS)" .ci/release "$$version" "$(CLIENTS)" "$(DAEMONS)" "$(DEBARCHS)"

deb: $(NFPM) ## Debian's packages meta9d, meta9 and meta9-guest of this commit, into DEBS (dist)
	@LDFLAGS="$(LDFLAGS)" .ci/deb "$(DEBS)" $(DEBARCHS)

# The sample VM of `make run`, whose data and sockets are where both programs
# look by default: ./meta9-data and ./meta9-run.
SAMPLE := 550e8400-e29b-41d4-a716-446655440000

run: build ## start meta9d here with a sample VM; Ctrl-C ends it
	@set -eu; export META9_ADDR=unix:meta9-run/admin.sock; ended=; \
	! bin/meta9 ls / >/dev/null 2>&1 || { echo 'a meta9d serves this folder already (meta9-run/admin.sock)' >&2; exit 1; }; \
	bin/meta9d & daemon=$$!; \
	trap 'ended=1; kill $$daemon 2>/dev/null || :' INT TERM; trap 'kill $$daemon 2>/dev/null || :' EXIT; \
	until bin/meta9 ls / >/dev/null 2>&1; do \
		kill -0 $$daemon 2>/dev/null || { wait $$daemon; exit $$?; }; \
		sleep 0.1; \
	done; \
	bin/meta9 stat /vms/$(SAMPLE) >/dev/null 2>&1 || bin/meta9 vm create -f tests/testdata/sample-vm.json; \
	printf '%s\n' '' 'meta9d serves. Paste into another terminal, in this folder:' '' \
		"  export META9_ADDR=$$META9_ADDR" \
		'  bin/meta9 ls -l /vms/$(SAMPLE)/keys' \
		'  bin/meta9 cat /vms/$(SAMPLE)/keys/motd' \
		'  bin/meta9 put /vms/$(SAMPLE)/keys/color blue' \
		'  bin/meta9 watch /vms/$(SAMPLE)/keys/color' '' 'watch is silent until color changes. Ctrl-C here ends meta9d.' ''; \
	wait $$daemon || test -n "$$ended"

run-fleet: build ## start a fleet here: three members of etcd, two meta9d and a VM; Ctrl-C ends it
	cd tests/cluster && $(GO) build -o ../../bin/run-fleet ./run
	bin/run-fleet -bin bin -dir meta9-fleet

quick: runner ## while you work: what is fast of check, and the tests that the change reaches, without the race detector
	@$(RUNNER) sections quick-check quick-test

quick-timed: ## how long make quick takes after a change of one line in fs/errs, on which all depend
	@.ci/quick-timed

# vet and staticcheck read only the packages in whose folders something is not committed,
# or else those of the last commit: what a change does to the others is make check's.
quick-check: $(GOFUMPT) $(STATICCHECK) $(INEFFASSIGN) $(MISSPELL)
	@bad=$$($(GOFUMPT) -l .); test -z "$$bad" || { echo "not gofumpt'ed:"; echo "$$bad"; exit 1; }
	@git ls-files -z ':!:*testdata*' ':!:*go.sum' ':!:LICENSE' | xargs -0 $(MISSPELL) -error -i stpo
	$(INEFFASSIGN) ./...
	@.ci/changed | xargs -r $(GO) vet
	@.ci/changed | xargs -r $(STATICCHECK) -checks all
	cd tests && $(GO) test -count=1 ./arrow

# No race detector and no -count=1, so that go's cache answers for each package that the
# change does not reach. Tests mostly wait, so eight packages at a time, and those whose
# tests take longest come first, so that no long one is left alone at the end: go builds
# and runs packages in this order, and each once. vet is quick-check's, and reads the
# packages that changed; reading all took a fifth of the time. The tests of cmd/ look at
# the meta9d in bin/quick, so that the cache knows when it is another.
quick-test:
	@mkdir -p bin/quick
	$(GO) build -buildvcs=false -ldflags="-s -w" -o bin/quick/ ./cmd/meta9d
	META9_TEST_DAEMON=$(CURDIR)/bin/quick/meta9d $(GO) test -short -vet=off -ldflags="-s -w" -p 8 -parallel 8 ./session/... ./cmd/... ./...

test: runner ## everything that shows that meta9 works
	@$(RUNNER) sections $(SECTIONS)

# errcheck leaves tests out, the modules of tests too, and what .ci/errcheck.txt
# names; misspell leaves out recordings. staticcheck leaves nothing out.
check: $(GOFUMPT) $(STATICCHECK) $(ERRCHECK) $(INEFFASSIGN) $(MISSPELL) ## formatting, vet, linters, go.mod, the arrows between rooms
	@bad=$$($(GOFUMPT) -l .); test -z "$$bad" || { echo "not gofumpt'ed:"; echo "$$bad"; exit 1; }
	$(GO) vet ./...
	cd tests && $(GO) vet ./... && $(GO) vet -tags soak ./...
	cd tests/cluster && $(GO) vet ./... && $(GO) vet -tags soak ./...
	$(GO) vet -tags unfenced ./fs/store/etcd && $(GO) vet -tags unsequenced ./fs/store/etcd
	$(STATICCHECK) -checks all ./...
	cd tests && ../$(STATICCHECK) -checks all ./...
	cd tests/cluster && ../../$(STATICCHECK) -checks all ./...
	$(ERRCHECK) -ignoretests -exclude .ci/errcheck.txt ./...
	$(INEFFASSIGN) ./...
	cd tests && ../$(INEFFASSIGN) ./...
	cd tests/cluster && ../../$(INEFFASSIGN) ./...
	@git ls-files -z ':!:*testdata*' ':!:*go.sum' ':!:LICENSE' | xargs -0 $(MISSPELL) -error -i stpo
	$(GO) mod tidy -diff
	cd tests && $(GO) mod tidy -diff
	cd tests/cluster && $(GO) mod tidy -diff
	cd tests && $(GO) test -count=1 ./arrow

unit: cc runner ## the tests of every package, with the race detector
	$(GOTEST) -race -count=1 -timeout 20m ./...

blackbox: cc runner ## foreign clients, kill -9, strace, attacks: against the real meta9d
	cd tests && $(GOTEST) -count=1 -timeout 5m ./apt ./arrow ./bench ./doctor ./fair ./metrics ./p9fs ./raw ./runner ./service ./soak/... ./testenv ./vminfo ./web
	cd tests && META9_TEST_RACE=1 $(GOTEST) -count=1 -timeout 30m -p 1 ./backup ./crash ./structure ./interop ./libvirt ./linear ./oracle ./hostile ./durability ./mdata ./qmp ./package ./reload ./restart ./txn

test-guest: runner ## a real Linux kernel in QEMU mounts the real meta9d
	cd tests && $(GOTEST) -count=1 -timeout 30m -p 1 ./guest/... ./mount/...

test-fleet: runner ## several hosts' stores over a real etcd cluster of three
	cd tests/cluster && $(GOTEST) -count=1 -timeout 12m ./...

fuzz: ## run every fuzz target for FUZZTIME (20s), FUZZJOBS (2) at a time; the log goes to FUZZLOG
	@.ci/fuzz $(FUZZTIME) $(FUZZLOG) $(FUZZJOBS)

soak: ## one part of a long form of tests, SOAKTIME (45m) long; SOAK=NAME, alone it lists them
	@cd tests && $(GO) run ./soak/run -time $(SOAKTIME) $(SOAK)

bench: build ## measure meta9d beside other servers, and with BASE=COMMIT beside itself; BENCH="-rows read1,read64 -check"
	cd tests && $(GO) build -o ../bin/bench ./bench
	bin/bench -meta9d bin/meta9d $(if $(BASE),-base $(BASE)) $(BENCH)

fleet-size: ## load 100,000 VMs of 50 keys into an etcd, and print what they take; SIZE="-vms 10000 -members 3"
	cd tests/cluster && $(GO) build -o ../../bin/bench-etcd ./etcd
	bin/bench-etcd -size -members 1 $(SIZE)

bench-fair: build ## what one hostile VM does to 100 honest guests, attack by attack; FAIR="-attacks listing,chmods -rounds 1 -check"
	cd tests && $(GO) build -o ../bin/fair ./fair
	bin/fair -meta9d bin/meta9d $(FAIR)

bench-guest: ## cat in a guest 1,000 times: by FUSE's cache, v9fs, diod, p9's server, QEMU's virtio-9p; GUEST=-check
	cd tests && $(GO) test -run '^$$' -bench Cat -benchtime 1x -timeout 30m ./guest $(GUEST)

docs: build ## write the manual pages of the commands to docs/
	$(GO) generate ./cmd/...

clean: ## remove what was built (not ./meta9-data)
	rm -rf bin dist .tools

runner:
	@cd tests && $(GO) build -o $(RUNNER) ./runner

# The race detector needs a C compiler.
cc:
	@command -v gcc >/dev/null || { \
		how="apt-get install -y --no-install-recommends gcc libc6-dev"; \
		test "$$(id -u)" = 0 || { echo "the race detector needs gcc; as root: $$how"; exit 1; }; \
		echo "installing for the race detector: $$how"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$how >/dev/null; }

$(GOFUMPT):
	GOBIN=$(CURDIR)/.tools $(GO) install mvdan.cc/gofumpt@v0.12.0
	mv .tools/gofumpt $@

$(STATICCHECK):
	GOBIN=$(CURDIR)/.tools $(GO) install honnef.co/go/tools/cmd/staticcheck@v0.8.2
	mv .tools/staticcheck $@

$(CYCLONEDX):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
	mv .tools/cyclonedx-gomod $@

$(NFPM):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
	mv .tools/nfpm $@

$(ERRCHECK):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/kisielk/errcheck@v1.30.0
	mv .tools/errcheck $@

$(INEFFASSIGN):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/gordonklaus/ineffassign@v0.2.0
	mv .tools/ineffassign $@

$(MISSPELL):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/client9/misspell/cmd/misspell@v0.3.4
	mv .tools/misspell $@
