-- keep_body: keep a body that could not be understood, as a dead letter. The same body again takes its own place.
-- KEYS  1 dead letters  2 their order  3 senders noticed  4 bodies of this sender
-- ARGV  1 now  2 sender  3 what it is about  4 letter (JSON)  5 most bodies of one sender  6 notice again after (ms)
-- Returns {1 if somebody is to be told of this sender now, else 0; then the letters that had to go for it, oldest first}.
local now = tonumber(ARGV[1])
local last = tonumber(redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2] or '0')
local number = string.format('%.0f', math.max(now, last + 1))
redis.call('HSET', KEYS[1], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[2], number, ARGV[3])
redis.call('ZADD', KEYS[4], number, ARGV[3])
local noticed = tonumber(redis.call('ZSCORE', KEYS[3], ARGV[2]) or '0')
local is_due = noticed == 0 or now >= noticed + tonumber(ARGV[6])
if is_due then redis.call('ZADD', KEYS[3], ARGV[1], ARGV[2]) end
local answer = {is_due and 1 or 0}
local too_many = redis.call('ZCARD', KEYS[4]) - tonumber(ARGV[5])
if too_many > 0 then
  for _, about in ipairs(redis.call('ZRANGE', KEYS[4], 0, too_many - 1)) do
    answer[#answer + 1] = redis.call('HGET', KEYS[1], about) or nil
    redis.call('HDEL', KEYS[1], about)
    redis.call('ZREM', KEYS[2], about)
    redis.call('ZREM', KEYS[4], about)
  end
end
return answer
