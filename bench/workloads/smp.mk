# SPDX-License-Identifier: Apache-2.0
# A parallel compile: PARTS copies of a generated file, each its own compiler.
PARTS := 0 1 2 3 4 5 6 7 8 9 10 11
all: $(PARTS:%=/tmp/smp/part%.o)
	@cat $^ | cksum
/tmp/smp/part%.o: /bench/data/part.c
	@gcc -O1 -DPART=$* -c -o $@ $<
