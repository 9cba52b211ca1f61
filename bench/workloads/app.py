# SPDX-License-Identifier: Apache-2.0
"""python: objects, dictionaries, strings, sorting, generators, json, re."""
import json, re

state = 14


def random(n):
    global state
    state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
    return (state >> 33) % n


class Account:
    def __init__(self, name):
        self.name, self.total, self.history = name, 0, []

    def move(self, amount):
        self.total += amount
        self.history.append(amount)
        return self


def queens(n, row=0, columns=0, left=0, right=0):
    if row == n:
        return 1
    count, free = 0, ~(columns | left | right) & ((1 << n) - 1)
    while free:
        bit = free & -free
        free ^= bit
        count += queens(n, row + 1, columns | bit, (left | bit) << 1,
                        (right | bit) >> 1)
    return count


accounts = {}
for i in range(200000):
    name = "n%d" % random(500)
    accounts.setdefault(name, Account(name)).move(random(1000) - 500)
top = sorted(accounts.values(), key=lambda a: (-a.total, a.name))[:5]
print("accounts", [(a.name, a.total, len(a.history)) for a in top])
print("queens", queens(9))
words = ["".join(chr(97 + random(26)) for _ in range(3 + random(6)))
         for _ in range(20000)]
text = json.dumps({w: [len(w), w[::-1]] for w in words})
again = json.loads(text)
print("json", len(text), sum(v[0] for v in again.values()))
print("re", len(re.findall(r"[aeiou][^aeiou\W]+[aeiou]", " ".join(words))))
print("primes", sum(n for n in range(2, 20000)
                    if all(n % d for d in range(2, int(n**0.5) + 1))))
