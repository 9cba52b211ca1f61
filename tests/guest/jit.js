// SPDX-License-Identifier: Apache-2.0
// Functions that V8 compiles, deoptimises and compiles again: prints the same
// with --jitless and without.
'use strict';
let h = 0x811c9dc5;
const mix = x => { h = Math.imul(h ^ x, 0x01000193) >>> 0; };

function sieve(n) {
	const is = new Uint8Array(n + 1).fill(1);
	let count = 0;
	for (let i = 2; i <= n; i++)
		if (is[i]) {
			count++;
			for (let j = i * i; j <= n; j += i) is[j] = 0;
		}
	return count;
}

function matrix(n) {
	const a = new Float64Array(n * n).map((_, i) => Math.sin(i));
	const c = new Float64Array(n * n);
	for (let i = 0; i < n; i++)
		for (let j = 0; j < n; j++) {
			let sum = 0;
			for (let k = 0; k < n; k++) sum += a[i * n + k] * a[k * n + j];
			c[i * n + j] = sum;
		}
	return c.reduce((x, y) => x + y, 0);
}

function add(a, b) { return a + b; }
function polymorphic(n) {
	let sum = 0;
	for (let i = 0; i < n; i++) sum = add(sum, i & 7);
	for (let i = 0; i < n; i++) sum = add(sum, 0.25); // from integers to doubles
	let text = add('', sum); // and to strings
	for (let i = 0; i < 50; i++) text = add(text, i);
	const big = add(2n ** 70n, BigInt(text.length));
	return text.length + ' ' + big;
}

class Shape { area() { return 1; } }
class Square extends Shape { constructor(s) { super(); this.s = s; } area() { return this.s * this.s; } }
class Late extends Shape { area() { return -1; } }
function classes(n) {
	let sum = 0;
	for (let i = 0; i < n; i++) sum += (i > n - 9 ? new Late() : new Square(i & 3)).area();
	return sum;
}

function strings(n) {
	const words = [];
	for (let i = 0; i < n; i++) words.push((i * 7919).toString(16) + '-' + i % 13);
	words.sort();
	const found = words.join(',').match(/[0-9a-f]+-7\b/g);
	found.forEach(w => mix(w.charCodeAt(0) + w.length));
	return JSON.stringify(JSON.parse(JSON.stringify({words}))).length;
}

function* numbers(n) { for (let i = 0; i < n; i++) yield i; }
function throwing(n) {
	let caught = 0;
	for (const i of numbers(n)) {
		try { if (i % 5 === 0) throw new Error(i); } catch (e) { caught += +e.message; }
	}
	return caught;
}

for (let round = 0; round < 3; round++)
	console.log(sieve(200000), matrix(40).toFixed(9), polymorphic(30000), classes(50000), strings(3000), throwing(5000), h);
console.log(require('crypto').createHash('sha256').update('x'.repeat(100000)).digest('hex'));
console.log(require('zlib').gunzipSync(require('zlib').gzipSync(Buffer.alloc(200000, 'abc'))).length);
