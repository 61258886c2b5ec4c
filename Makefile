# make demo      two namespaces, two cables, a bond on each side, a cable pulled under traffic (as root)
# make test      every test there is (as root: most make network namespaces), and what each test program took; what needs the lab
#                and cannot have it is listed at the end, and fails under CI=true. cargo test --workspace runs the same, one
#                program after the other
# make lab       installs what the lab's machines need and fetches their kernels, see tests/lab/README.md
# make clients   unpacks monitoring programs in target/clients/, for the tests that run them
# make competitors  the same in target/competitors/ for teamd and Open vSwitch, with which make bench compares bondd
# make bench     what bonds cost: throughput beside a plain cable, frames lost, memory, failovers beside the kernel's driver (as
#                root, an hour); ONLY=throughput, failovers, restarts, resources, probes, many, busy, guest-many, in-kernel, lab,
#                instructions, competitors or slow-port plays one part; many starts and takes over 1, 25, 200 and 1,000 bonds,
#                busy pulls the cable of a bond while the agent makes, takes over, changes and shows 200 others, guest-many has 1
#                and 100 in the lab's machine on both data planes, or as many as SIZES=1,25 and those that PLANES=tc,team say;
#                competitors and slow-port have the kernel's bonding driver, teamd and Open vSwitch beside bondd; instructions
#                are held against docs/measured.md. RECORD=now puts the tables of throughput, instructions and in-kernel in there,
#                those of competitors and slow-port into docs/competitors.md, and the picture into docs/failover.svg
# make fidelity  bondd against the kernel's bonding driver, in the lab's machine: the scenarios of tests/fidelity/ and COUNT random
#                ones from SEED, all of them on both data planes; ONLY=word plays those with the word in their name, KEEP=file
#                keeps what was observed, NETKIT=1 plays them on netkit devices
# make netkit    the tests of plane tc and all end-to-end tests, on netkit devices in the lab's machine
# make fuzz      the readers of option files against ten million changed files, or ten minutes of them; SEED and EXECUTIONS change that
# make check     formatting and lints
# make build     release programs in target/release
# make install   the same, manual pages, systemd unit and examples, under $(DESTDIR)$(PREFIX), and the hook of ifupdown under
#                $(DESTDIR)$(SYSCONFDIR), where it harms nobody: without ifupdown, without a bond in the interfaces file, or
#                beside Debian's ifenslave it does nothing
# make uninstall removes what make install put there, with the same variables; bonds, option files and other files of the
#                administrator stay. Stop and disable the service first
# make clean     removes target/

export SEED COUNT ONLY KEEP EXECUTIONS RECORD SIZES NETKIT PLANES
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
CARGO ?= cargo
INSTALL ?= install

export PATH := $(PATH):$(HOME)/.cargo/bin

# Programs that read a bond's files, stand on its ports or make it, for tests/tests/clients.rs and cli_ifupdown.rs.
PACKAGES_clients = prometheus-node-exporter ansible-core munin-plugins-core zabbix-agent lldpd ifupdown

# What a user would take instead of bondd, for make bench.
PACKAGES_competitors = libteam-utils openvswitch-switch

# Where tests note that they did nothing, and why.
NOT_RUN = $(CURDIR)/target/not-run

.PHONY: all demo test bench check build install uninstall clean deps lab fidelity netkit fuzz clients competitors
all: build

demo: deps
	$(CARGO) build --locked --workspace --bins
	@$(CARGO) run --locked --quiet --package bondd-tests --bin bondd-demo

test: deps clients lab
	@rm -f $(NOT_RUN)
	@BONDD_NOT_RUN=$(NOT_RUN) CARGO=$(CARGO) tests/all; status=$$?; \
	if [ -e $(NOT_RUN) ]; then \
	    echo; echo "not run, the rest says nothing about it:"; sort -u $(NOT_RUN) | sed 's/^/    /'; rm $(NOT_RUN); \
	fi; exit $$status

# Without its packages the part that needs them says so itself.
bench: deps lab build
	@$(MAKE) --no-print-directory competitors || true
	$(CARGO) build --locked --release --package bondd-tests --bin bondd-bench --bin bondd-fidelity-guest --bin bondd-send-frames \
	    --bin bondd-in-kernel-guest --bin bondd-competitors-guest
	@BONDD_BIN_DIR=$${BONDD_BIN_DIR:-$(CURDIR)/target/release} target/release/bondd-bench

fidelity: deps lab
	@CARGO=$(CARGO) tests/lab-programs
	@BONDD_BIN_DIR=$${BONDD_BIN_DIR:-$(CURDIR)/target/lab} $(CARGO) test --locked --quiet --package bondd-tests --test vm fidelity -- --nocapture

netkit: deps lab
	@CARGO=$(CARGO) tests/lab-programs
	@BONDD_BIN_DIR=$${BONDD_BIN_DIR:-$(CURDIR)/target/lab} $(CARGO) test --locked --quiet --package bondd-tests --test vm netkit:: -- \
	    --include-ignored --nocapture --test-threads 2

fuzz: deps
	@$(CARGO) run --locked --release --quiet --package bondd-tests --bin bondd-fuzz-options

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

build:
	$(CARGO) build --locked --release --package bondd --package ifenslave-compat --bins

install: build
	$(INSTALL) -D -m 0755 target/release/bondd $(DESTDIR)$(PREFIX)/sbin/bondd
	$(INSTALL) -D -m 0755 target/release/bondctl $(DESTDIR)$(PREFIX)/sbin/bondctl
	$(INSTALL) -D -m 0755 target/release/ifenslave $(DESTDIR)$(PREFIX)/sbin/ifenslave
	ln -sf ifenslave $(DESTDIR)$(PREFIX)/sbin/ifenslave-2.6
	$(INSTALL) -D -m 0755 packaging/bondd-trees $(DESTDIR)$(PREFIX)/sbin/bondd-trees
	@for page in man/*.[58]; do \
	    $(INSTALL) -D -m 0644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}" || exit 1; \
	done
	$(INSTALL) -D -m 0644 packaging/bondd.conf $(DESTDIR)$(PREFIX)/share/doc/bondd/bondd.conf
	$(INSTALL) -D -m 0644 packaging/modprobe.conf $(DESTDIR)$(PREFIX)/share/doc/bondd/modprobe.conf
	$(INSTALL) -D -m 0755 packaging/checkmk-bondd $(DESTDIR)$(PREFIX)/share/doc/bondd/checkmk-bondd
	$(INSTALL) -D -m 0644 packaging/zabbix-bondd.conf $(DESTDIR)$(PREFIX)/share/doc/bondd/zabbix-bondd.conf
	$(INSTALL) -D -m 0644 packaging/bondd.service $(DESTDIR)$(PREFIX)/lib/systemd/system/bondd.service
	@for phase in pre-up up post-down; do \
	    $(INSTALL) -D -m 0755 packaging/ifupdown-hook "$(DESTDIR)$(SYSCONFDIR)/network/if-$$phase.d/bondd" || exit 1; \
	done
	sed -i 's|/usr/sbin|$(PREFIX)/sbin|' $(DESTDIR)$(PREFIX)/lib/systemd/system/bondd.service \
	    $(DESTDIR)$(PREFIX)/share/doc/bondd/modprobe.conf $(DESTDIR)$(SYSCONFDIR)/network/if-*.d/bondd

uninstall:
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/sbin/, bondd bondctl ifenslave ifenslave-2.6 bondd-trees)
	@for page in man/*.[58]; do \
	    rm -f "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}" || exit 1; \
	done
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/share/doc/bondd/, bondd.conf modprobe.conf checkmk-bondd zabbix-bondd.conf)
	@folder="$(DESTDIR)$(PREFIX)/share/doc/bondd"; [ ! -d "$$folder" ] || rmdir --ignore-fail-on-non-empty "$$folder"
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/bondd.service
	rm -f $(foreach phase, pre-up up post-down, $(DESTDIR)$(SYSCONFDIR)/network/if-$(phase).d/bondd)

clean:
	$(CARGO) clean

# Asks apt-get only for what is missing, so that it does nothing, and needs no network, on a machine that has it all.
deps:
	@command -v $(CARGO) >/dev/null || { \
	    echo "cargo is missing, and Debian 12's is too old (Rust 1.88 is needed): install it from https://rustup.rs" >&2; exit 1; }
	@missing=; \
	want() { command -v "$$1" >/dev/null || missing="$$missing $$2"; }; \
	header() { ls $$1 >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	want clang clang; want cc gcc; want ip iproute2; want tc iproute2; want iperf3 iperf3; want tcpdump tcpdump; \
	want ethtool ethtool; want ping iputils-ping; want setpriv util-linux; want modprobe kmod; \
	header "/usr/include/stdio.h" libc6-dev; header "/usr/include/linux/bpf.h" linux-libc-dev; \
	if [ -n "$$missing" ]; then \
	    echo "installing$$missing"; \
	    export DEBIAN_FRONTEND=noninteractive; \
	    apt-get install -y --no-install-recommends $$missing >/dev/null || \
	    { apt-get update >/dev/null && apt-get install -y --no-install-recommends $$missing >/dev/null; }; \
	fi

# Tests that need the lab say so themselves where it cannot be had.
lab:
	@{ tests/lab/vm --prepare && tests/lab/vm --prepare --kernel 6.12; } || [ "$$CI" != true ]

# Unpacked with the libraries that they lack here, not installed: no service starts, and nothing is left when target/ is gone.
clients competitors: %: target/%/unpacked
target/%/unpacked: Makefile
	@echo "unpacking $(PACKAGES_$*)"
	@rm -rf target/$* && mkdir -p target/$*/deb/partial
	@download() { apt-get install -y --reinstall --download-only --no-install-recommends \
	    -o Dir::Cache::archives="$(CURDIR)/target/$*/deb" -o APT::Sandbox::User=root $(PACKAGES_$*) >/dev/null; }; \
	download 2>/dev/null || { apt-get update >/dev/null && download; }
	@for package in target/$*/deb/*.deb; do dpkg-deb --extract "$$package" target/$* || exit 1; done
	@rm -r target/$*/deb
	@touch $@
