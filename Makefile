# The thin door in front of meson; see README.md.
BUILD := build
PREFIX ?= /usr/local
DESTDIR ?=

.PHONY: all test run install setup clean
all: setup
	@ninja -C $(BUILD) --quiet

setup:
	@scripts/setup build
	@test -f $(BUILD)/build.ninja || meson setup $(BUILD) --prefix $(PREFIX)

test: setup
	@scripts/setup test
	@tests/run

clean:
	rm -rf build build-*
