-- recall: what rules or PagerDuty kept from being sent is due at once, because the rules are others now.
-- KEYS  1 due  2 parked
-- ARGV  1 now  2 prefix of records  3 at most
-- Returns how many were recalled; fewer than asked for means that none are left.
local recalled = redis.call('ZPOPMIN', KEYS[2], ARGV[3])
for i = 1, #recalled, 2 do
  local id = recalled[i]
  local key = ARGV[2] .. id
  local outcome = redis.call('HGET', key, 'outcome')
  if outcome then
    -- a version that was refused stays refused: only a new one is tried again
    if outcome == 'dead_lettered' then
      local version = redis.call('HINCRBY', key, 'version', 1)
      redis.call('HSET', key, 'news', 'again', 'outcome', 'pending')
      if redis.call('HGET', key, 'status') == 'resolved' then redis.call('HSET', key, 'resolved_version', version) end
    end
    redis.call('PERSIST', key)
    redis.call('ZADD', KEYS[1], 'LT', ARGV[1], id)
  end
end
return #recalled / 2
