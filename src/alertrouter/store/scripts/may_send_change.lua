-- may_send_change: count a call for a change event, where pages leave room for it.
-- KEYS  1 sends that wait for the routing key  2 its calls of the last 60 s
-- ARGV  1 now  2 calls that may have been made (0 = no limit)  3 name of this call
-- Returns 1 if it may be made.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local limit, minute = tonumber(ARGV[2]), 60000
if limit > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', tonumber(ARGV[1]) - minute))
  if redis.call('ZCARD', KEYS[2]) >= limit then return 0 end
  redis.call('ZADD', KEYS[2], ARGV[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[2], 2 * minute)
end
return 1
