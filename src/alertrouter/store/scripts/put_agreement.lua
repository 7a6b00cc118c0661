-- put_agreement: what replicas agree on about the time is this from now on, unless another was quicker.
-- KEYS  1 clock
-- ARGV  1 what was agreed on before ('' for nothing)  2 what is from now on: "<ms ahead of TIME> <latest time, ms>"
-- Returns 1, or 0 if something else was agreed on meanwhile.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
