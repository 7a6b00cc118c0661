-- repair_members: the shared incident was resolved while others joined it: whose event came last cannot be told.
-- KEYS  1 members of the incident  2 due
-- ARGV  1 now  2 prefix of records  3 destination  4 repair after (ms)
-- Returns how many will be told again.
local members = redis.call('SMEMBERS', KEYS[1])
for _, id in ipairs(members) do
  local key = ARGV[2] .. id
  if redis.call('EXISTS', key) == 1 then
    redis.call('HSET', key, 't:' .. ARGV[3] .. ':unsure', ARGV[1])
    redis.call('ZADD', KEYS[2], 'LT', string.format('%.0f', tonumber(ARGV[1]) + tonumber(ARGV[4])), id)
  end
end
return #members
