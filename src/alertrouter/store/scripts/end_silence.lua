-- end_silence: take a silence out of force, and say so in the history, once however many ask.
-- KEYS  1 silences  2 history
-- ARGV  1 id  2 history length, 0 for none
--       then the fields of the history's entry, name and value by turns
-- Returns 1 if it was in force until now, else 0.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[2] ~= '0' then redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', unpack(ARGV, 3)) end
return 1
