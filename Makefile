# The thin door in front of meson; see README.md.
BUILD := build
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: all test test-guest test-kvm fuzz format run bench bench-quick install setup clean
all: setup
	@ninja -C $(BUILD) --quiet

setup:
	@scripts/setup build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) --prefix $(PREFIX)

test: setup
	@scripts/setup test
	@tests/run --all

# All of it, with machines on KVM; for a host that has one: docs/kvm.md.
test-kvm: setup
	@scripts/setup test
	@tests/run --kvm

# Programs of Debian's packages in Debian guests: docs/instruction-tests.md.
test-guest: setup
	@scripts/setup guest
	@tests/run --guest

# Each fuzz target for FUZZ_SECONDS (20 unless set) under libFuzzer.
fuzz: setup
	@scripts/setup test
	@scripts/fuzz

# As .clang-format says; tables opt out with "clang-format off".
format:
	@scripts/setup test
	@git ls-files '*.c' '*.h' | xargs clang-format -i

# On a terminal: the machine's console. Else: one command in the guest.
run: all
	@scripts/setup run
	@$(BUILD)/skerry image list | grep -q '^debian/12 ' || \
		$(BUILD)/skerry image build debian/12
	@if [ -t 0 ] && [ -t 1 ]; then \
		exec $(BUILD)/skerry run debian/12; \
	else \
		exec $(BUILD)/skerry run debian/12 -- \
			sh -c 'uname -a; cat /etc/debian_version'; \
	fi

# Against native and QEMU; bench/README.md explains the tables.
bench: all
	@scripts/setup bench
	@mkdir -p $(BUILD)/bench
	@bench/run --out $(BUILD)/bench/results.jsonl \
		--svg $(BUILD)/bench/results.svg
	@bench/boot --engine skerry,qemu
	@bench/machine --out $(BUILD)/bench/machine.jsonl

bench-quick: all
	@scripts/setup bench
	@bench/run --quick

install: all
	@DESTDIR=$(DESTDIR) meson install -C $(BUILD) --no-rebuild --quiet

clean:
	rm -rf build build-*
