-- The usual token bucket, for each of two keys: ARGV holds amount a second and cost of each. All or nothing.
local now = redis.call('TIME')
local at = now[1] * 1000 + math.floor(now[2] / 1000)
local left = {}
for i, key in ipairs(KEYS) do
  local amount, cost = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local known = redis.call('HMGET', key, 'left', 'at')
  local before, since = tonumber(known[1] or amount), tonumber(known[2] or at)
  left[i] = math.min(amount, before + (at - since) * amount / 1000)
  if left[i] < cost then return {0, i} end
end
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, 'left', left[i] - ARGV[2 * i], 'at', at)
  redis.call('PEXPIRE', key, 2000)
end
return {1, 0}
