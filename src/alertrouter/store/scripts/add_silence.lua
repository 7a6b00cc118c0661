-- add_silence: put a silence into force, and into the history.
-- KEYS  1 silences  2 history
-- ARGV  1 id  2 silence (JSON)  3 how many there may be  4 history length, 0 for none
--       then the fields of the history's entry, name and value by turns
-- Returns 1 if it is in force, 0 if there are too many.
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[4] ~= '0' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', unpack(ARGV, 5)) end
return 1
