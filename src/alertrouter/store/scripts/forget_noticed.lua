-- forget_noticed: senders about whom somebody was told long ago, and who have been understood since.
-- KEYS  1 senders noticed
-- ARGV  1 before (ms)
-- Returns their names; the next body of theirs that cannot be understood is told of again.
local senders = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[1], 'LIMIT', 0, 100)
for _, sender in ipairs(senders) do redis.call('ZREM', KEYS[1], sender) end
return senders
