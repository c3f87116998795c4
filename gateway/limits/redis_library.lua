-- The buckets of one organization, inside Redis: what gateway/limits/protocol.py says, atomically.
--
-- `gateway.limits.redis_library` puts this text between what it needs (`clock` and `KEPT_MS`, redis_numbers.lua,
-- redis_buckets.lua) and what calls it: a library of Redis Functions, or a script. Everything it touches has the
-- hash tag of one organization, so that no message leaves its slot.
--
-- Keys, all below `<prefix>{<org>}:`
--   account      hash: epoch, born, now, ttl, w:<worker> = its session
--   sessions     sorted set: session by when it last spoke (us); SILENT or CLOSED when it is over
--   index        sorted set: bucket by when it is forgotten (ms)
--   s:<session>  its last message's number and answer, packed
--   h:<session>  hash: bucket = what is in its hands and what of that is reserved, packed
--   b:<bucket>   packed, see B_*; <bucket> is <kind>:<limit>:<starts_s>:<subject>, and where that one counts another
--                unit, as its limit did before it was changed, <kind>:<limit>:<starts_s>~<unit>:<subject>

local LEASE_US, REBUILD_US = 3000000, 1000000
local STEP_US = 1000000 -- a clock that goes back by no more has jittered; by more, it has been set
local YOUNG_MS = 60000  -- in an epoch that began less than so long ago no bucket is forgotten
local DAY_MS = 86400000
local LONGEST_MS = 400 * DAY_MS
local PAGE = 500        -- buckets that people ask about in one call, so that no other waits for it for long
local ENDED = 256       -- buckets that come out of the hands of sessions that are over, in one call
local SILENT, CLOSED = 1, 0 -- scores in `sessions` of those that are over, while anything is in their hands
local SLICE = 1000      -- of the arguments of one command; even. Lua has room for some thousands

-- One account: what a message reads and writes of it. `base` is `<prefix>{<org>}:`.
local function account_at(base)
  local found = redis.call('HMGET', base .. 'account', 'epoch', 'born', 'now', 'ttl')
  return {
    base = base,
    epoch = found[1],
    born = tonumber(found[2] or 0),
    now = tonumber(found[3] or 0),
    ttl = tonumber(found[4] or 0),
    need = 0, -- until when what is spoken of now needs it
    ended = 0, -- how many in `sessions` are over
    room = ENDED, -- so many buckets may still come out of their hands in this call
  }
end

-- Write a bucket. Forgotten when it is as good as new; while something of it is in hands, a day after that.
local function keep(account, b, now)
  local now_ms = math.floor(now / 1000)
  local ms = LEASE_US / 1000
  if b.kind == 'b' then
    ms = math.max(b[B_ENDS] * 1000 - now_ms, 0) + 2 * DAY_MS
  elseif b.kind == 'r' and b[B_AMOUNT] > 0 then
    ms = ms + math.max(0, math.floor((cap_of(b) - b[B_LEVEL]) * b.period / b[B_AMOUNT] / 1000)) + 1
  end
  if b[B_LENT] > 0 then
    ms = ms + DAY_MS
  end
  ms = math.max(math.min(ms, LONGEST_MS), YOUNG_MS - math.floor((now - account.born) / 1000)) + KEPT_MS
  -- The index is for people: a bucket's place in it moves in steps, always to later than its own end.
  if now_ms + ms > b[B_UNTIL] then
    b[B_UNTIL] = now_ms + ms + math.max(60000, math.floor(ms / 8))
    redis.call('ZADD', account.base .. 'index', b[B_UNTIL], b.name)
    redis.call('ZREMRANGEBYSCORE', account.base .. 'index', '-inf', now_ms)
  end
  account.need = math.max(account.need, b[B_UNTIL])
  redis.call('SET', account.base .. 'b:' .. b.name, cmsgpack.pack({ unpack(b, 1, B_UNTIL) }), 'PX', ms)
end

-- What speaks of buckets outlives the last of them. Moved a day at a time.
local function keep_account(account, now)
  if account.need > account.ttl or account.opened then
    account.ttl = math.max(account.ttl, account.need + DAY_MS)
    local ms = account.ttl - math.floor(now / 1000) + KEPT_MS
    for _, name in ipairs({ 'account', 'sessions', 'index' }) do
      redis.call('PEXPIRE', account.base .. name, ms)
    end
    redis.call('HSET', account.base .. 'account', 'ttl', account.ttl)
  end
  redis.call('HSET', account.base .. 'account', 'now', now)
end

-- Sessions end: `all` in their hands comes back, or what requests in flight had reserved and the rest is spent. They
-- mean nothing from now on; but of very many buckets the rest is in their hands until the next calls, whosever they are.
local function over(account, sessions, now, all)
  local names, back, held, open = {}, {}, {}, {}
  for _, id in ipairs(sessions) do
    local hands = account.room > 0 and redis.call('HGETALL', account.base .. 'h:' .. id) or {}
    local last = math.min(#hands, 2 * account.room)
    local rest = account.room == 0 or last < #hands
    account.room = account.room - last / 2
    for i = 1, last, 2 do
      local name, had, reserved = hands[i], cmsgpack.unpack(hands[i + 1])
      if not held[name] then
        names[#names + 1] = name
        back[name], held[name], open[name] = 0, 0, 0
      end
      back[name] = back[name] + (all and had or reserved)
      held[name], open[name] = held[name] + had, open[name] + reserved
    end
    local packed = redis.call('GET', account.base .. 's:' .. id)
    if packed then
      local worker = 'w:' .. cmsgpack.unpack(packed)[1]
      if redis.call('HGET', account.base .. 'account', worker) == id then
        redis.call('HDEL', account.base .. 'account', worker)
      end
    end
    redis.call('DEL', account.base .. 's:' .. id)
    if rest then
      for i = 1, last, 2 do
        redis.call('HDEL', account.base .. 'h:' .. id, hands[i])
      end
      redis.call('ZADD', account.base .. 'sessions', all and CLOSED or SILENT, id)
      account.ended = account.ended + 1
    else
      redis.call('DEL', account.base .. 'h:' .. id)
      redis.call('ZREM', account.base .. 'sessions', id)
    end
  end
  for _, name in ipairs(names) do
    local b = unpacked(name, redis.call('GET', account.base .. 'b:' .. name))
    if b then
      refill(b, now)
      b[B_LENT] = math.max(0, b[B_LENT] - held[name])
      b[B_OPEN] = math.max(0, b[B_OPEN] - open[name])
      put_in(b, back[name])
      keep(account, b, now)
    end
  end
end

local function judge(request, parts, refused, now)
  local no, longest = nil, -2
  for _, wish in ipairs(request) do
    local b = parts[wish[1] + 1]
    if b[B_AMOUNT] <= 0 or level_of(b) < wish[2] then
      refused[wish[1] + 1] = true
      local wait = refusal(b, wish[2], now)
      if longest ~= -1 and (wait == -1 or wait > longest) then
        no, longest = wish[1], wait
      end
    end
  end
  if no then
    return { {}, no, longest }
  end
  local granted = {}
  for i, wish in ipairs(request) do
    local b = parts[wish[1] + 1]
    granted[i] = math.min(wish[3], math.max(level_of(b), 0))
    grant(b, granted[i])
  end
  return { granted, -1, 0 }
end

-- The name of the bucket for `unit`, and the bucket if it is remembered. `b` is what stands under the plain `name`. As
-- long as that counts another unit, this one has a name of its own; and keeps it as long as it is remembered, so that
-- nothing is looked for in two places but what is not there. (Names had no unit once, and during a rollout those
-- who know no other are to find the same buckets.)
local function of_unit(account, name, b, unit, found)
  if b and b[B_UNIT] == unit or string.sub(name, 1, 1) == 's' then
    return name, b
  end
  local other = name_of_unit(name, unit)
  local known = found[other] or unpacked(other, redis.call('GET', account.base .. 'b:' .. other))
  if b or known then
    return other, known
  end
  return name, nil
end

local function parts_of(account, session, said, rebuilding, now)
  local names, keys, parts, found = {}, {}, {}, {}
  for i, p in ipairs(said) do
    names[i] = name_of(p[P_UNIT], p[P_LIMIT], p[P_SUBJECT], p[P_STARTS], p[P_ENDS])
    keys[i] = account.base .. 'b:' .. names[i]
  end
  local packed, hands = {}, {}
  for first = 1, #names, SLICE do
    local last = math.min(first + SLICE - 1, #names)
    for i, one in ipairs(redis.call('MGET', unpack(keys, first, last))) do
      packed[first + i - 1] = one
    end
  end
  for i, p in ipairs(said) do
    local b = found[names[i]] or unpacked(names[i], packed[i])
    names[i], b = of_unit(account, names[i], b, p[P_UNIT], found)
    if not found[names[i]] then
      if b then
        refill(b, now)
        change(b, p)
      else
        b = made(names[i], p, now)
      end
      found[names[i]] = b
    end
    parts[i] = b
  end
  for first = 1, #names, SLICE do
    local last = math.min(first + SLICE - 1, #names)
    for i, one in ipairs(redis.call('HMGET', account.base .. 'h:' .. session, unpack(names, first, last))) do
      hands[first + i - 1] = one
    end
  end
  for i, p in ipairs(said) do
    local b = parts[i]
    if not b.held_before then
      b.held, b.open = 0, 0
      if hands[i] then
        b.held, b.open = cmsgpack.unpack(hands[i])
      end
      b.held_before, b.open_before = b.held, b.open
    end
    if rebuilding then
      learn(b, p[P_LEFT], p[P_LEFT_AT], now)
      if p[P_HELD] > 0 then
        b.held, b[B_LENT] = b.held + p[P_HELD], b[B_LENT] + p[P_HELD]
        fit(b)
      end
    end
    local held = b.held - p[P_SPENT] - p[P_BACK]
    b[B_LENT] = math.max(0, b[B_LENT] + math.max(held, 0) - b.held)
    b.held = math.max(held, 0)
    if b.kind ~= 's' then
      take_out(b, math.max(-held, 0))
      put_in(b, p[P_BACK])
    end
    b[B_OPEN] = math.max(0, b[B_OPEN] - b.open)
    b.open = math.min(p[P_OPEN], b.held)
    b[B_OPEN] = b[B_OPEN] + b.open
  end
  return parts
end

local function keep_parts(account, session, parts, now)
  local changed = {}
  for _, b in ipairs(parts) do
    if not b.kept then
      b.kept = true
      keep(account, b, now)
      if b.held == 0 then
        if b.held_before ~= 0 then
          redis.call('HDEL', account.base .. 'h:' .. session, b.name)
        end
      elseif b.held ~= b.held_before or b.open ~= b.open_before then
        changed[#changed + 1] = b.name
        changed[#changed + 1] = cmsgpack.pack(b.held, b.open)
      end
    end
  end
  for first = 1, #changed, SLICE do
    redis.call('HSET', account.base .. 'h:' .. session, unpack(changed, first, math.min(first + SLICE - 1, #changed)))
  end
end

-- Who speaks: its session, and what is remembered of it. Without them, the answer when there is nothing to do.
local function speaker(account, m, message, nonce, now)
  local worker, id, seq = m[2], m[3], m[5]
  local opens = id == '' and seq == 1
  if opens then
    id = redis.call('HGET', account.base .. 'account', 'w:' .. worker) or ''
  end
  local packed = id ~= '' and redis.call('GET', account.base .. 's:' .. id)
  local was = packed and cmsgpack.unpack(packed)
  if was and was[1] == worker and seq == was[2] and (not opens or was[3] == redis.sha1hex(message)) then
    redis.call('ZADD', account.base .. 'sessions', now, id)
    return nil, nil, was[4] -- word for word: the answer was lost
  elseif opens then
    if was then
      over(account, { id }, now, false) -- the worker has given it up
    end
    redis.call('HSET', account.base .. 'account', 'w:' .. worker, nonce)
    account.opened = true
    return nonce, { worker, 0, redis.sha1hex(message), '' }
  elseif was and was[1] == worker and seq == was[2] + 1 then
    return id, was
  end
  return nil, nil, cmsgpack.pack({ '', account.epoch, now, false, 0, {}, {} })
end

-- The account as it is now: begun if it was not known, and without the sessions that have fallen silent.
local function awake(base, nonce, args)
  local account = account_at(base)
  local now = clock(args)
  if not account.epoch then
    account.epoch, account.born = nonce, now
    redis.call('HSET', base .. 'account', 'epoch', nonce, 'born', now)
  elseif now < account.now then
    if account.now - now <= STEP_US then
      now = account.now
    else
      if now < account.born then
        account.born = now
        redis.call('HSET', base .. 'account', 'born', now)
      end
      for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. 'sessions', '(' .. string.format('%.0f', now), '+inf')) do
        redis.call('ZADD', base .. 'sessions', now, id)
      end
    end
  end
  account.need = math.floor(now / 1000)
  local found = redis.call('ZRANGEBYSCORE', base .. 'sessions', '-inf', now - LEASE_US, 'WITHSCORES')
  local closed, silent = {}, {}
  for i = 1, #found, 2 do
    local which = tonumber(found[i + 1]) == CLOSED and closed or silent
    which[#which + 1] = found[i]
  end
  if #found > 0 then
    over(account, closed, now, true)
    over(account, silent, now, false)
  end
  return account, now
end

local function base_of(keys)
  return string.sub(keys[1], 1, -1 - string.len('account'))
end

-- keys: account and what the message names. args: 'ask', SliceAsk, a random name for what begins here.
local function ask(keys, args)
  local m, nonce = cmsgpack.unpack(args[2]), args[3]
  local account, now = awake(base_of(keys), nonce, args)
  local id, was, answer = speaker(account, m, args[2], nonce, now)
  if not id then
    keep_account(account, now)
    return answer
  end
  local epoch, seq, said, requests, close = m[4], m[5], m[7], m[8], m[9]
  redis.call('ZADD', account.base .. 'sessions', now, id)
  local sessions = redis.call('ZCARD', account.base .. 'sessions') - account.ended
  local rebuilds = m[10] or (seq == 1 and epoch ~= '' and epoch ~= account.epoch)
  local parts = parts_of(account, id, said, rebuilds, now)
  local results, slices, refused = {}, {}, {}
  for i, request in ipairs(requests) do
    results[i] = judge(request, parts, refused, now)
  end
  local workers, young = math.max(sessions, m[6]), now - account.born < REBUILD_US
  for i, b in ipairs(parts) do
    local lent, want = 0, said[i][P_WANT]
    if want > 0 and not refused[i] and (b[B_BASIS_AT] >= 0 or not young) then
      lent = lend(b, want, workers)
    end
    slices[i] = { lent, 0 }
  end
  for i, b in ipairs(parts) do
    slices[i][2] = level_of(b)
  end
  keep_parts(account, id, parts, now)
  answer = cmsgpack.pack({ id, account.epoch, now, true, sessions, results, slices })
  if close then
    over(account, { id }, now, true)
  else
    local ms = math.max(account.ttl, account.need) - math.floor(now / 1000) + 2 * DAY_MS + KEPT_MS
    redis.call('SET', account.base .. 's:' .. id, cmsgpack.pack({ was[1], seq, was[3], answer }), 'PX', ms)
    redis.call('PEXPIRE', account.base .. 'h:' .. id, ms)
  end
  keep_account(account, now)
  return answer
end

-- A page of the account's buckets: a function that gives their names, and where the next page begins, '0' at the end.
local function page(account, cursor, now)
  local found = redis.call('ZSCAN', account.base .. 'index', cursor, 'COUNT', PAGE)
  local names = {}
  for i = 1, #found[2], 2 do
    if tonumber(found[2][i + 1]) >= now / 1000 then
      names[#names + 1] = found[2][i]
    end
  end
  return names, found[1]
end

-- What is remembered, a page at a time. args: 'usage', {cursor}. Returns the next cursor and `Standings`.
local function usage(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then
    return cmsgpack.pack({ '0', {} })
  end
  local account, now = awake(base_of(keys), args[3], args)
  local sessions = redis.call('ZCARD', account.base .. 'sessions') - account.ended
  local names, cursor = page(account, cmsgpack.unpack(args[2])[1], now)
  local standings = {}
  for _, name in ipairs(names) do
    local b = unpacked(name, redis.call('GET', account.base .. 'b:' .. name))
    if b then
      refill(b, now)
      local limit, subject = string.match(name, '^.:([^:]*):[^:]*:(.*)$')
      standings[#standings + 1] = {
        limit, subject, b[B_UNIT], b[B_AMOUNT], b[B_BURST], b[B_PERIOD], b[B_STARTS], b[B_ENDS],
        level_of(b), b[B_LENT], b[B_OPEN], sessions, now, account.born,
      }
    end
  end
  keep_account(account, now)
  return cmsgpack.pack({ cursor, standings })
end

-- As good as new, a page at a time. args: 'reset', {cursor, limit, subject, of all subjects?}. Returns the next
-- cursor and which buckets.
local function reset(keys, args)
  if redis.call('EXISTS', keys[1]) == 0 then
    return cmsgpack.pack({ '0', {} })
  end
  local wanted = cmsgpack.unpack(args[2])
  local account, now = awake(base_of(keys), args[3], args)
  local names, cursor = page(account, wanted[1], now)
  local done = {}
  for _, name in ipairs(names) do
    local limit, subject = string.match(name, '^.:([^:]*):[^:]*:(.*)$')
    if limit == wanted[2] and (wanted[4] or subject == wanted[3]) then
      local b = unpacked(name, redis.call('GET', account.base .. 'b:' .. name))
      if b then
        refill(b, now)
        b[B_LEVEL], b[B_PART] = math.max(cap_of(b) - b[B_LENT], 0), 0
        keep(account, b, now)
        done[#done + 1] = name
      end
    end
  end
  keep_account(account, now)
  return cmsgpack.pack({ cursor, done })
end

-- Budgets as they were, from before this epoch. args: 'seed', array of `Standings`.
local function seed(keys, args)
  local used = cmsgpack.unpack(args[2])
  local account, now = awake(base_of(keys), args[3], args)
  for _, u in ipairs(used) do
    local name = name_of(u[3], u[1], u[2], u[7], u[8])
    -- One that is of this epoch is what the bucket itself said, perhaps of what has been lent since. (What is said
    -- of the future was said before the clock was set back.)
    if string.sub(name, 1, 1) == 'b' and (u[13] < account.born or u[13] > now) then
      local b = unpacked(name, redis.call('GET', account.base .. 'b:' .. name))
      name, b = of_unit(account, name, b, u[3], {})
      b = b or made(name, u, now)
      refill(b, now)
      change(b, u)
      learn(b, u[9], u[13], now)
      keep(account, b, now)
    end
  end
  keep_account(account, now)
  return #used
end

local calls = { ask = ask, usage = usage, reset = reset, seed = seed }

local function call(keys, args)
  return calls[args[1]](keys, args)
end
