-- recall: what rules or PagerDuty kept from being sent is due at once, because rules, keys or silences are others now.
-- KEYS  1 due  2 parked
-- ARGV  1 now  2 prefix of records  3 about so many  4 whether what PagerDuty refused is tried again (0|1)
--       5 where to go on ('0' to begin)
-- Returns where to go on; '0' means that none are left.
local cursor, found = unpack(redis.call('ZSCAN', KEYS[2], ARGV[5], 'COUNT', ARGV[3]))
for i = 1, #found, 2 do
  local id = found[i]
  local key = ARGV[2] .. id
  local outcome = redis.call('HGET', key, 'outcome')
  local stays = outcome == 'dead_lettered' and ARGV[4] == '0'
  if not stays and redis.call('ZREM', KEYS[2], id) == 1 and outcome then
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
return cursor
