# SPDX-License-Identifier: Apache-2.0
"""The workloads: name, group, command (under bash with pipefail, in an empty
folder of /tmp), and whether `--quick` takes it. What a command prints must be
the same on every machine: it is compared with what the native run printed.
bench/README.md says what each is for."""
import collections

Workload = collections.namedtuple("Workload", "name group command is_quick")

GROUPS = ["integer", "float", "applications", "kernel"]

WORKLOADS = [Workload(*w) for w in [
    ("sort-ints", "integer", "sort ints", True),
    ("sort-strings", "integer", "sort strings", False),
    ("calls-direct", "integer", "calls direct", True),
    ("calls-indirect", "integer", "calls indirect", True),
    ("memory-chase", "integer", "memory chase", False),
    ("memory-copy", "integer", "memory copy", True),
    ("memory-set", "integer", "memory set", False),
    ("hash", "integer", "/bench/bin/hash", False),
    ("crc", "integer", "crc", False),
    ("sieve", "integer", "sieve", False),
    ("bytecode", "integer", "bytecode", False),
    ("sha256-c", "integer", "sha256 c", False),
    ("sha256-ni", "integer", "sha256 ni", False),
    ("aes-c", "integer", "aes c", False),
    ("aes-ni", "integer", "aes ni", False),
    ("xz", "integer", "head -c 1200000 /bench/data/mixed | xz -6 -T1 | cksum",
     False),
    ("zstd", "integer",
     "zstd -q -16 --single-thread -c </bench/data/mixed | cksum", True),
    ("7z", "integer",
     "head -c 1500000 /bench/data/mixed >in && 7zr a -bd -mx=5 -mmt=1 "
     "-mtm=- out.7z in >log && 7zr t out.7z >log && 7zr x -so out.7z | cksum",
     False),
    ("bzip2", "integer", "bzip2 -9 -c </bench/data/mixed | tee out | cksum && "
     "bunzip2 -c <out | cksum", False),
    ("gzip", "integer", "gzip -9 -n -c </bench/data/mixed | tee out | cksum && "
     "gunzip -c <out | cksum", False),

    ("matmul-sse2", "float", "matmul sse2", True),
    ("matmul-avx2", "float", "matmul avx2", True),
    ("x87", "float", "float x87", True),
    ("nbody", "float", "float nbody", False),
    ("mandelbrot", "float", "float mandelbrot", False),
    ("fft", "float", "float fft", False),
    ("simd", "float", "simd", False),

    ("python", "applications", "python3 -I /bench/app.py", True),
    ("perl", "applications", "perl /bench/app.pl", False),
    ("lua", "applications", "lua5.4 /bench/app.lua 240", True),
    ("luajit", "applications", "luajit /bench/app.lua 1200", False),
    ("node", "applications", "node /bench/app.js", False),
    ("sqlite", "applications", "sqlite3 :memory: </bench/app.sql", False),
    ("gcc", "applications", "gcc -O2 -w -c -o big.o /bench/data/big.c && "
     "cksum <big.o", False),
    ("awk", "applications", "gawk -f /bench/app.awk /bench/data/text "
     "/bench/data/text /bench/data/text", False),
    ("openssl", "applications",
     "for i in 1 2 3 4 5 6 7 8; do openssl dgst -sha512 /bench/data/text; "
     "openssl enc -chacha20 -K 00 -iv 00 -in /bench/data/text 2>log | cksum; "
     "done", False),
    ("shell", "applications",
     "dash -c 'i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); case $i in "
     "*77) s=${s#??????}x$i;; esac; done; echo $i ${#s}; "
     "for k in $(seq 150); do echo $k | sed s/1/2/; done | cksum'", False),

    ("fork-exec", "kernel", "kernel fork-exec", True),
    ("fork", "kernel", "kernel fork", False),
    ("syscalls", "kernel", "kernel syscalls", True),
    ("one-byte", "kernel", "kernel one-byte", False),
    ("page-faults", "kernel", "kernel page-faults", True),
    ("protection", "kernel", "kernel protection", False),
    ("context-switch", "kernel", "kernel context-switch", True),
    ("pipe", "kernel", "kernel pipe", False),
    ("metadata", "kernel", "kernel metadata", False),
    ("mapped-file", "kernel", "kernel mapped-file", False),
    ("block-io", "kernel", "kernel block-io", False),
    ("signals", "kernel", "kernel signals", False),
]]
