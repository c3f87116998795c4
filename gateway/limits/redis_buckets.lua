-- The three kinds of bucket, as gateway/limits/kinds.py has them: rates refill, budgets do not, slots come back.
-- Between redis_numbers.lua and redis_library.lua; nothing here reads or writes.

local FLAP_US = 10000000  -- a limit that is cut and raised again within this time brings nothing in
local SCARCE = 8
local SLOT_WAIT_US = 1000000
local SPOKEN_US = 1250000

-- What a bucket is packed as. `level`: whole units in it; `part`: of the next, in [0, period in us).
local B_FORMAT, B_UNIT, B_AMOUNT, B_BURST, B_PERIOD, B_STARTS, B_ENDS = 1, 2, 3, 4, 5, 6, 7
local B_LEVEL, B_PART, B_AT, B_LENT, B_OPEN = 8, 9, 10, 11, 12
local B_BASIS, B_BASIS_AT, B_PEAK, B_CUT_AT, B_UNTIL = 13, 14, 15, 16, 17
local FORMAT = 1

local P_LIMIT, P_SUBJECT, P_UNIT, P_AMOUNT, P_BURST, P_PERIOD, P_STARTS, P_ENDS = 1, 2, 3, 4, 5, 6, 7, 8
local P_SPENT, P_BACK, P_OPEN, P_WANT, P_LEFT, P_LEFT_AT, P_HELD = 9, 10, 11, 12, 13, 14, 15

local function kind_of(unit, ends)
  if unit == 'concurrency' then
    return 's'
  elseif ends > 0 then
    return 'b'
  end
  return 'r'
end

local function cap_of(b)
  if b.kind == 'r' then
    return b[B_AMOUNT] > 0 and b[B_BURST] or 0
  end
  return b[B_AMOUNT]
end

local function name_of(unit, limit, subject, starts, ends)
  return kind_of(unit, ends) .. ':' .. limit .. ':' .. string.format('%.0f', starts) .. ':' .. subject
end

-- Of the bucket of a limit whose unit was changed, while the one of before is remembered under the other name.
local function name_of_unit(name, unit)
  local head, subject = string.match(name, '^(.:[^:]*:[^:]*)(:.*)$')
  return head .. '~' .. unit .. subject
end

local function unpacked(name, packed)
  local b = packed and cmsgpack.unpack(packed)
  if not b or b[B_FORMAT] ~= FORMAT then
    return nil
  end
  b.kind, b.name, b.period = string.sub(name, 1, 1), name, math.max(b[B_PERIOD], 1) * 1000000
  return b
end

local function made(name, p, now)
  local b = { FORMAT, p[P_UNIT], p[P_AMOUNT], p[P_BURST], p[P_PERIOD], p[P_STARTS], p[P_ENDS], 0, 0, now, 0, 0, 0, -1, 0, 0, 0 }
  b.kind, b.name, b.period = string.sub(name, 1, 1), name, math.max(p[P_PERIOD], 1) * 1000000
  b[B_LEVEL] = cap_of(b)
  return b
end

-- So many come back; what does not fit above all that is in hands is lost.
local function put_in(b, units)
  if b.kind == 'b' then
    b[B_LEVEL] = b[B_LEVEL] + units
  elseif b.kind == 'r' then
    local top = cap_of(b) - b[B_LENT]
    if b[B_LEVEL] + units < top then
      b[B_LEVEL] = b[B_LEVEL] + units
    elseif b[B_LEVEL] < top then
      b[B_LEVEL], b[B_PART] = top, 0
    end
  end
end

-- No more is left than fits above all that is in hands.
local function fit(b)
  local top = cap_of(b) - b[B_LENT]
  if b[B_LEVEL] >= top then
    b[B_LEVEL], b[B_PART] = top, 0
  end
end

local function take_out(b, units)
  b[B_LEVEL] = math.max(b[B_LEVEL] - units, -MOST)
end

local function refill(b, now)
  if b.kind == 'r' then
    local top = cap_of(b) - b[B_LENT]
    b[B_LEVEL], b[B_PART] = advance(b[B_LEVEL], b[B_PART], b[B_AMOUNT], b.period, now - b[B_AT], top)
  end
  b[B_AT] = now
end

-- The limit is another one now: a raise is there at once, a cut takes what no longer fits. Debts stay.
local function change(b, p)
  b[B_UNIT], b[B_STARTS], b[B_ENDS] = p[P_UNIT], p[P_STARTS], p[P_ENDS]
  if b[B_AMOUNT] == p[P_AMOUNT] and b[B_BURST] == p[P_BURST] and b[B_PERIOD] == p[P_PERIOD] then
    return
  end
  local had = cap_of(b)
  local period = math.max(p[P_PERIOD], 1) * 1000000
  b[B_AMOUNT], b[B_BURST], b[B_PERIOD] = p[P_AMOUNT], p[P_BURST], p[P_PERIOD]
  local has = cap_of(b)
  if b.kind == 'r' then
    if period ~= b.period then
      -- part / period of a unit, in the new period's parts
      local whole = math.floor(period / b.period)
      local more = muldiv(b[B_PART], period % b.period, 0, b.period)
      b[B_PART] = b[B_PART] * whole + more
      b.period = period
    end
    local since = b[B_AT] - b[B_CUT_AT]
    if since >= 0 and since < FLAP_US then
      had = math.max(had, b[B_PEAK])
    end
    if has < had then
      b[B_PEAK], b[B_CUT_AT] = had, b[B_AT]
    end
    local level = b[B_LEVEL] + math.max(0, has - had)
    if level >= has then
      level, b[B_PART] = has, 0
    end
    b[B_LEVEL] = level
  else
    b[B_LEVEL] = b[B_LEVEL] + has - had
    b[B_BASIS] = b[B_BASIS] + has - had
  end
end

-- Slots are what is not in anybody's hands; the others' level is kept.
local function level_of(b)
  if b.kind == 's' then
    return b[B_AMOUNT] - b[B_LENT]
  end
  return b[B_LEVEL]
end

-- What is in a bucket `elapsed` us after `level` whole units were.
local function later(b, level, elapsed)
  local part, cap = 0, cap_of(b)
  if b.kind == 'r' then
    level, part = advance(level, 0, b[B_AMOUNT], b.period, elapsed, cap)
    if level >= cap then
      return cap, 0
    end
  end
  return level, part
end

-- `left` were left at `at`, says the newest that is known from before the store was lost: it replaces what was
-- thought of that time, and what was taken since stays taken.
local function learn(b, left, at, now)
  if b.kind == 's' or at <= b[B_BASIS_AT] then
    return -- who has which slots, sessions say
  end
  local thought, thought_part = cap_of(b), 0
  if b[B_BASIS_AT] >= 0 then
    thought, thought_part = later(b, b[B_BASIS], now - b[B_BASIS_AT])
  end
  local known, known_part = later(b, left, now - at)
  local part = b[B_PART] + known_part - thought_part
  local level = b[B_LEVEL] + (known - thought)
  if part < 0 then
    level, part = level - 1, part + b.period
  elseif part >= b.period then
    level, part = level + 1, part - b.period
  end
  b[B_LEVEL], b[B_PART] = math.max(level, -MOST), part
  fit(b)
  b[B_BASIS], b[B_BASIS_AT] = left, at
end

-- Why a bucket says no to `least` units: how long until it would say yes, -1 for never.
local function refusal(b, least, now)
  if least > cap_of(b) or b[B_AMOUNT] <= 0 then
    return -1
  elseif b.kind == 's' then
    return SLOT_WAIT_US
  elseif b.kind == 'b' then
    return math.max(0, b[B_ENDS] * 1000000 - now)
  end
  local wait = wait_for(b[B_LEVEL], b[B_PART], b[B_AMOUNT], b.period, least)
  if least > cap_of(b) - b[B_LENT] then
    wait = math.min(wait + SPOKEN_US, MOST) -- what is in hands leaves too little to come in, until it is spoken of
  end
  return wait
end

local function grant(b, units)
  b[B_LENT] = b[B_LENT] + units
  b.held = b.held + units
  if b.kind ~= 's' then
    b[B_LEVEL] = b[B_LEVEL] - units
  end
end

local function lend(b, want, workers)
  local share = math.floor(level_of(b) / (2 * workers))
  if level_of(b) < SCARCE * workers or share * SCARCE < want then
    return 0
  end
  grant(b, math.min(want, share))
  return math.min(want, share)
end
