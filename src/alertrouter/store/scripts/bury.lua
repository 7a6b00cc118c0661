-- bury: set a record aside that this program cannot read, so that it keeps no other waiting.
-- KEYS  1 this worker's leases  2 dead letters
-- ARGV  1 id  2 lease to give back  3 dead letter (JSON)
-- The record itself stays as it is, for a program that can read it; hearing the alert again makes it due again.
redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1] .. ' unreadable', ARGV[3])
return 1
