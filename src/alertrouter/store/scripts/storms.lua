-- storms: how many sends wait for each routing key, for one worker at a time.
-- KEYS  1 waiting  2 storms  3 digests
-- ARGV  1 now  2 every (ms)  3 prefix of wait queues
-- Returns {} if a worker looked less than `every` ago, else {queue and number of sends by turns, the keys in a storm as
--       HGETALL has them, the open digests as HGETALL has them}. When a worker last looked is in `storms`, as '@looked'.
local now = tonumber(ARGV[1])
local looked = tonumber(redis.call('HGET', KEYS[2], '@looked') or '0')
if looked <= now and now < looked + tonumber(ARGV[2]) then return {} end
redis.call('HSET', KEYS[2], '@looked', ARGV[1])
local sizes = {}
for _, queue in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  sizes[#sizes + 1] = queue
  sizes[#sizes + 1] = redis.call('ZCARD', ARGV[3] .. queue)
end
return {sizes, redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
