// SPDX-License-Identifier: Apache-2.0
// node: objects, maps, typed arrays, strings and sorting under a JIT compiler.
'use strict';
let state = 15;
function random(n) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 4294967296) * n);
}

class Node {
  constructor(key) {
    this.key = key;
    this.left = this.right = null;
    this.count = 1;
  }
}
function insert(root, key) {
  let at = root;
  for (;;) {
    if (key === at.key) {
      at.count++;
      return;
    }
    const side = key < at.key ? 'left' : 'right';
    if (!at[side]) {
      at[side] = new Node(key);
      return;
    }
    at = at[side];
  }
}
const depth = (n) => (n ? 1 + Math.max(depth(n.left), depth(n.right)) : 0);

const root = new Node(500000);
for (let i = 0; i < 250000; i++) insert(root, random(1000000));
console.log('tree', depth(root));

const map = new Map();
for (let i = 0; i < 200000; i++) {
  const k = 'k' + random(20000);
  map.set(k, (map.get(k) || 0) + 1);
}
const top = [...map].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
console.log('map', map.size, top[0].join(' '));

const n = 160, a = new Float64Array(n * n), b = a.slice(), c = a.slice();
for (let i = 0; i < n * n; i++) {
  a[i] = random(100);
  b[i] = random(100);
}
for (let r = 0; r < 12; r++)
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      let s = 0;
      for (let k = 0; k < n; k++) s += a[i * n + k] * b[k * n + j];
      c[i * n + j] += s;
    }
console.log('matrix', c.reduce((x, y) => x + y, 0));

let text = '';
for (let i = 0; i < 120000; i++) text += String.fromCharCode(97 + random(26));
console.log('text', text.match(/[aeiou]{2}[^aeiou]/g).length,
  JSON.stringify(JSON.parse(JSON.stringify({ t: text.split('a') }))).length);
