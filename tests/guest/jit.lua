-- SPDX-License-Identifier: Apache-2.0
-- Traces of each kind for LuaJIT: prints the same with -joff and -jon.
local bit = require("bit")
local h = 2166136261
local function mix(x)
	h = bit.tobit(bit.bxor(h, x) * 403 + bit.rol(h, 7))
end

local function sieve(n)
	local is, count = {}, 0
	for i = 2, n do is[i] = true end
	for i = 2, n do
		if is[i] then
			count = count + 1
			for j = i * i, n, i do is[j] = false end
		end
	end
	return count
end

local function mandelbrot(size)
	local inside = 0
	for y = 0, size - 1 do
		for x = 0, size - 1 do
			local cr, ci = 2 * x / size - 1.5, 2 * y / size - 1
			local zr, zi, n = 0, 0, 0
			while n < 50 and zr * zr + zi * zi < 4 do
				zr, zi = zr * zr - zi * zi + cr, 2 * zr * zi + ci
				n = n + 1
			end
			mix(n)
			if n == 50 then inside = inside + 1 end
		end
	end
	return inside
end

local function fib(n) return n < 2 and n or fib(n - 1) + fib(n - 2) end

local function polymorphic(n)
	local shapes = {
		{area = function(s) return s.a * 2 end, a = 3},
		{area = function(s) return #s.a end, a = "text"},
		{area = function(s) return s.b + 0.5 end, b = 1},
	}
	local sum = 0
	for i = 1, n do
		local s = shapes[i % 3 + 1]
		sum = sum + s:area()
		if i == n - 7 then -- invalidates what was compiled
			shapes[1].area = function() return -1 end
		end
	end
	return sum
end

local function strings(n)
	local t = {}
	for i = 1, n do t[#t + 1] = ("%x-%d"):format(i * 7919, i % 13) end
	table.sort(t)
	local s = table.concat(t, ",")
	for word in s:gmatch("%x+%-7") do mix(#word + word:byte(1)) end
	return #s
end

local function errors(n)
	local caught = 0
	for i = 1, n do
		if not pcall(function() if i % 5 == 0 then error("x") end end) then
			caught = caught + 1
		end
	end
	return caught
end

for round = 1, 3 do
	print(round, sieve(50000), mandelbrot(60), fib(22), polymorphic(40000),
	      strings(4000), errors(5000), h)
end
local t = {}
for i = 1, 2000 do t[i] = math.sin(i) * 1e6 end
table.sort(t)
print(("%.14g %.14g %d"):format(t[1], t[2000], h))
