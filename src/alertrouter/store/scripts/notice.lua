-- notice: whether somebody is to be told of a sender now.
-- KEYS  1 senders noticed
-- ARGV  1 now  2 sender  3 notice again after (ms)
-- Returns 1 if so, and then it is put down; else 0.
local noticed = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[2]) or '0')
if noticed ~= 0 and tonumber(ARGV[1]) < noticed + tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
return 1
