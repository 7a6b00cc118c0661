-- put_flapping: what was found about the flapping of a record, unless there is newer news of it.
-- KEYS  1 the alert's record
-- ARGV  1 version that was looked at  2 what was found (JSON)
-- Returns 1, or 0 if it has newer news or is gone.
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'flapping', ARGV[2])
return 1
