-- remember: values for rules, each under a name of its own.
-- KEYS  names
-- ARGV  the values, in the order of KEYS
-- Returns how many.
for i, key in ipairs(KEYS) do redis.call('SET', key, ARGV[i]) end
return #KEYS
