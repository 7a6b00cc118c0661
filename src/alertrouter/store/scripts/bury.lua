-- bury: set a record aside that this program cannot read, so that it keeps no other waiting.
-- KEYS  1 this worker's leases  2 dead letters  3 order of dead letters
-- ARGV  1 now  2 id  3 lease to give back  4 dead letter (JSON)
-- The record itself stays as it is, for a program that can read it; hearing the alert again makes it due again.
local about = 'unreadable\n\n\n' .. ARGV[2]
local last = tonumber(redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2] or '0')
redis.call('ZREM', KEYS[1], ARGV[3])
redis.call('HSET', KEYS[2], about, ARGV[4])
redis.call('ZADD', KEYS[3], string.format('%.0f', math.max(tonumber(ARGV[1]), last + 1)), about)
return 1
