-- put_change: take a change event in.
-- KEYS  1 waiting changes
-- ARGV  1 now  2 the change, "<now>\t<JSON>"  3 how many may wait
-- Returns 1, or 0 where there is no room.
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
return 1
