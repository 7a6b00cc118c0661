-- heard_from: senders were heard; which of them had been silent for long.
-- KEYS  1 sources
-- ARGV  1 now  2 how long a silence is one (ms)  3 what was not heard for that long is forgotten (ms)  then the senders
-- Returns the number of senders that are remembered. Each has "<last heard> <heard since then without a silence>".
local now, silent_after, forget_after = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 4, #ARGV do
  local last, since = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+) (%d+)$')
  if not last or now > tonumber(last) + silent_after then since = ARGV[1] end
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f', math.max(now, tonumber(last or '0'))) .. ' ' .. since)
end
if redis.call('HLEN', KEYS[1]) > 1000 then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if now > tonumber(string.match(all[i + 1], '^%d+') or '0') + forget_after then redis.call('HDEL', KEYS[1], all[i]) end
  end
end
return redis.call('HLEN', KEYS[1])
