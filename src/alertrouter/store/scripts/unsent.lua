-- unsent: what was tried in vain or waits to be sent before all else. It changes nothing: Redis refuses a write here.
-- KEYS  1 due  2 waiting  3 owners
-- ARGV  1 look at so many of each queue  2 prefix of records  3 prefix of wait queues  4 prefix of leases
--       5 first score of a wait queue that is of no interest
-- Returns per alert that fires and is on its way {id, whether it stands in a wait queue (0|1), its hash, flat}.
local most, found, seen = tonumber(ARGV[1]), {}, {}
local function look_at(id, waits)
  if seen[id] then return end
  seen[id] = true
  local f = redis.call('HMGET', ARGV[2] .. id, 'status', 'outcome')
  if f[1] == 'firing' and f[2] == 'pending' then
    found[#found + 1] = {id, waits, redis.call('HGETALL', ARGV[2] .. id)}
  end
end
for _, limited_as in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local queue = ARGV[3] .. limited_as
  for _, place in ipairs(redis.call('ZRANGEBYSCORE', queue, '-inf', '(' .. ARGV[5], 'LIMIT', 0, most)) do
    look_at(string.match(place, '^[^\t]*\t[^\t]*\t(.*)$'), '1')
  end
end
for _, owner in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  for _, lease in ipairs(redis.call('ZRANGE', ARGV[4] .. owner, 0, most - 1)) do
    local fence, id = string.match(lease, '^([^\n]*)\n[^\n]*\n(.*)$')
    if fence ~= '' then look_at(id, '0') end
  end
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, most - 1)) do look_at(id, '0') end
return found
