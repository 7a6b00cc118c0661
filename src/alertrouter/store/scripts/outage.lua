-- outage: who of the replicas tells the second channel about PagerDuty, and what.
-- KEYS  1 outage
-- ARGV  1 now  2 failing (0|1): as this replica sees it  3 not oftener than (ms)
--       4 it is over when no replica has seen it for (ms)
-- Returns began | continues | over for the one that is to tell, else ''.
local now = tonumber(ARGV[1])
local f = redis.call('HMGET', KEYS[1], 'told_at', 'failing_at')
if ARGV[2] == '1' then
  redis.call('HSET', KEYS[1], 'failing_at', ARGV[1])
  if f[1] and math.abs(now - tonumber(f[1])) < tonumber(ARGV[3]) then return '' end
  redis.call('HSET', KEYS[1], 'told_at', ARGV[1])
  return f[1] and 'continues' or 'began'
end
if not f[1] or math.abs(now - tonumber(f[2] or '0')) < tonumber(ARGV[4]) then return '' end
redis.call('DEL', KEYS[1])
return 'over'
