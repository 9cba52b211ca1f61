-- SPDX-License-Identifier: Apache-2.0
-- lua, luajit: closures, tables, strings, a grid of life. The first argument
-- says how many times.
local times = tonumber(arg[1])

local function life(side, steps)
  local grid = {}
  for y = 1, side do
    grid[y] = {}
    for x = 1, side do
      grid[y][x] = (x * 7 + y * 13 + x * y) % 5 < 2 and 1 or 0
    end
  end
  for _ = 1, steps do
    local next = {}
    for y = 1, side do
      local row, up, down = grid[y], grid[y - 1] or grid[side],
        grid[y + 1] or grid[1]
      local out = {}
      for x = 1, side do
        local l, r = x > 1 and x - 1 or side, x < side and x + 1 or 1
        local n = up[l] + up[x] + up[r] + row[l] + row[r] + down[l] +
          down[x] + down[r]
        out[x] = (n == 3 or (n == 2 and row[x] == 1)) and 1 or 0
      end
      next[y] = out
    end
    grid = next
  end
  local sum = 0
  for y = 1, side do
    for x = 1, side do
      sum = (sum * 2 + grid[y][x]) % 1000003
    end
  end
  return sum
end

local function words(n)
  local seen, count = {}, 0
  for i = 1, n do
    local w = string.format("%x", (i * 2654435761) % 65536):reverse()
    if not seen[w] then
      seen[w] = 0
      count = count + 1
    end
    seen[w] = seen[w] + 1
  end
  return count
end

local function compose(n)
  local f = function(x) return x + 1 end
  for i = 1, n do
    local g = f
    f = function(x) return (g(x) * 3 + i) % 65537 end
  end
  return f
end

local f, sum = compose(40), 0
for i = 1, times * 100 do
  sum = (sum + f(i)) % 1000003
end
print("life", life(96, times * 2))
print("words", words(times * 2000))
print("closures", sum)
