# The version goes into the binary and the images' labels; the last is what they say
# until there is a tag.
VERSION := $(or $(VERSION),$(shell git describe --tags --dirty 2>/dev/null),v0.1.0)
COMMIT := $(or $(COMMIT),$(shell git rev-parse --verify -q HEAD 2>/dev/null),unknown)
export VERSION COMMIT

COMPOSE := scripts/compose.sh

.PHONY: peers pictures k8s swarm examples help up down logs audit compare run test soak mutate bench build images size size-record history release push reproduce clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-9s  %s\n", $$1, $$2 }' Makefile

up: ## build and start both variants and Prometheus, wait until healthy, print addresses
	@scripts/up.sh

down: ## stop them and remove containers, networks and volumes
	@$(COMPOSE) down --volumes --remove-orphans

logs: ## follow their logs
	@$(COMPOSE) logs --follow --tail 20

audit: ## audit scratch in the running stack; SERVICE=alpine, FLAGS="--format json"
	@scripts/look.sh audit $(SERVICE) $(FLAGS)

compare: ## compare both containers of the running stack; FLAGS="--format markdown"
	@scripts/look.sh compare $(FLAGS)

run: build ## serve on this machine, without Docker, and print the addresses
	@scripts/run.sh

test: ## run the tests of every module, and say what had to be left out
	@scripts/test.sh

examples: images ## build the examples, and try what they lose over stops, reloads and crashes
	@scripts/examples.sh

k8s: images ## try deploy/kubernetes on two nodes, as root; the first time 15 minutes
	@scripts/k8s.sh

swarm: images ## try deploy/swarm.yaml on a Swarm of this engine, which leaves it at the end
	@scripts/swarm.sh

soak: ## load, and fifty stops over each wire; no request may be lost; takes an hour
	go test -count=1 -timeout 60m -run 'TestStop.*UnderLoadLosesNothing|TestProgramsLoseNoRequest|TestReloadLosesNoRequest' -v . -soak
	go test -C e2e -count=1 -timeout 2h -parallel 4 -run 'OverAWire|SlowReaders' -v . -soak

mutate: ## change the code, and tests must fail; hours; PKG=./drain SINCE=HEAD~9
	@SINCE=$(SINCE) scripts/mutate.sh $(PKG)

bench: ## measure it beside its rivals; WITH="name=image:tag@port/path" adds one
	@scripts/bench.sh

build: ## build the binary, ./imagelab
	@scripts/build.sh imagelab

images: ## build both images
	@scripts/base-images.sh
	@$(COMPOSE) build scratch alpine

peers: images ## compare the audit with other tools, into docs/audit-peers.md; first some minutes
	@scripts/audit-peers.sh

size: ## compare the binary and the images with docs/size.md; make size-record renews it
	@scripts/size.sh

size-record: images
	@scripts/size.sh --record

pictures: images ## take the pictures of the dashboard in docs/ anew, with a Chromium
	IMAGELAB_SCREENSHOTS=$(CURDIR)/docs go test -C e2e -count=1 -run TestDashboardShowsBothVariantsLive .

history: ## say which image is smaller, and show the layers of both
	@scripts/history.sh

release: ## make archives, checksums, bills of materials and the image, in dist/
	@scripts/release.sh

push: ## make release, and push its image; IMAGE=name:tag
	@scripts/release.sh push

reproduce: ## make the release again in a clone elsewhere: it has to be the same, bit for bit
	@scripts/release.sh reproduce

clean: ## remove all that make has made: containers, images, tools, the binary
	@scripts/clean.sh
