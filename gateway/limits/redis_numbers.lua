-- Integer arithmetic of the buckets, in doubles: exact, as no number is larger than 2^53 and what is multiplied is
-- split first. Put before redis_library.lua; see there.

local MOST = 9000000000000000 -- of any amount, wait or debt

-- floor((a * b + c) / d) and what remains, exactly. 0 <= a < 2^53, 0 <= b < d, 0 <= c < d, d < 2^42.
local function muldiv(a, b, c, d)
  local t = a * b + c
  if t < 9007199254740992 then
    local r = t % d
    return (t - r) / d, r
  end
  -- Ten bits of `a` at a time, as on paper: r * 1024 + digit * b < 2^53.
  local q, r, unit = 0, 0, 1125899906842624 -- 2^50
  while unit >= 1 do
    local digit = math.floor(a / unit)
    a = a - digit * unit
    t = r * 1024 + digit * b
    r = t % d
    q = q * 1024 + (t - r) / d
    unit = unit / 1024
  end
  r = r + c
  if r >= d then
    return q + 1, r - d
  end
  return q, r
end

-- A level `elapsed` us later, `top` whole units at most (but never less than it was).
local function advance(level, part, amount, period, elapsed, top)
  if elapsed <= 0 or amount <= 0 or level >= top then
    return level, part
  end
  local periods = math.floor(elapsed / period)
  local most = math.max(1, math.floor(MOST / amount))
  while periods > 0 and level < top do
    local n = math.min(periods, most)
    level = level + n * amount
    periods = periods - n
  end
  if level < top then
    local more
    more, part = muldiv(amount, elapsed % period, part, period)
    level = level + more
  end
  if level >= top then
    return top, 0
  end
  return level, part
end

-- The least number of us after which `n` units are there; MOST when it is more.
local function wait_for(level, part, amount, period, n)
  local t = math.floor(((n - level) * period - part) / amount)
  if t >= MOST then
    return MOST
  end
  t = math.max(t, 0)
  while t > 0 and advance(level, part, amount, period, t - 1, n) >= n do -- doubles said a little too much
    t = t - 1
  end
  while advance(level, part, amount, period, t, n) < n do
    t = t + 1
  end
  return t
end
