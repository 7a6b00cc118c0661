-- backlog: the sizes of all queues at one instant.
-- KEYS  1 due  2 waiting  3 owners  4 dead letters
-- ARGV  1 now  2 prefix of wait queues  3 prefix of leases
-- Returns {records due now, records due later, sends that wait, leases held, dead letters}.
local waiting, leased = 0, 0
for _, queue in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  waiting = waiting + redis.call('ZCARD', ARGV[2] .. queue)
end
for _, owner in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  leased = leased + redis.call('ZCARD', ARGV[3] .. owner)
end
local due = redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[1])
return {due, redis.call('ZCARD', KEYS[1]) - due, waiting, leased, redis.call('HLEN', KEYS[4])}
