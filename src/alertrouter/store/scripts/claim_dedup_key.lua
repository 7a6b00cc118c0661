-- claim_dedup_key: keep a client's dedup_key for the first alert that is told under it by a routing key.
-- KEYS  1 whose it is
-- ARGV  1 id of the alert  2 how long a claim is remembered that nobody asks after (ms)
-- Returns 1 if it is this alert's, 0 if another's.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
