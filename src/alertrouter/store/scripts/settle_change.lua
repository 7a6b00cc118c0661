-- settle_change: a change event was taken, or refused for good.
-- KEYS  1 waiting changes
-- ARGV  1 the change
return redis.call('ZREM', KEYS[1], ARGV[1])
