-- claim_changes: take change events up, the oldest first.
-- KEYS  1 waiting changes
-- ARGV  1 now  2 lease  3 longest pause (both ms)  4 at most
-- Returns them as they were put. What is not settled is due again after the lease, or later: after half of its age.
local now = tonumber(ARGV[1])
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[4])
for i = 1, #due do
  local at = tonumber(string.match(due[i], '^(%d+)\t'))
  local pause = math.max(tonumber(ARGV[2]), math.min(tonumber(ARGV[3]), math.floor((now - at) / 2)))
  redis.call('ZADD', KEYS[1], string.format('%.0f', now + pause), due[i])
end
return due
