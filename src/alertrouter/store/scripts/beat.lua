-- beat: this worker lives; and is the data still the one that it knows?
-- KEYS  1 owners  2 epoch
-- ARGV  1 now  2 owner  3 a new random epoch
-- Returns the epoch of the data. Data that has none, an empty Redis, is given the new one.
redis.call('SET', KEYS[2], ARGV[3], 'NX')
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
return redis.call('GET', KEYS[2])
