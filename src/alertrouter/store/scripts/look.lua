-- look: all that is known of one alert at one instant. It changes nothing: Redis refuses a write here.
-- KEYS  1 its record  2 due  3 dead letters  4 order of dead letters  5 paused
-- ARGV  1 id  2 prefix of wait queues
-- Returns {} where there is no such alert, else {the record as HGETALL has it, when it is due (ms, '' for never),
--       per waiting send 4: destination, sends before it in its queue, sends in that queue, until when that queue's
--       routing key is left alone (ms, '' where it is not),
--       per dead letter of its present state 3: destination, letter, its number}.
local id = ARGV[1]
local record = redis.call('HGETALL', KEYS[1])
if #record == 0 then return {} end
local waiting, letters = {}, {}
for i = 1, #record, 2 do
  local name, value = record[i], record[i + 1]
  local dead = string.match(name, '^t:(.+):dead$')
  if name == 'waits' then
    for queue, place in string.gmatch(value, '([^\t\n]*)\t([^\n]*)') do
      local before = redis.call('ZRANK', ARGV[2] .. queue, place .. '\t' .. id)
      if before then
        waiting[#waiting + 1] = string.match(place, '^[^\t]*')
        waiting[#waiting + 1] = before
        waiting[#waiting + 1] = redis.call('ZCARD', ARGV[2] .. queue)
        waiting[#waiting + 1] = redis.call('ZSCORE', KEYS[5], queue) or ''
      end
    end
  elseif dead and value ~= '0' then
    local first_heard = redis.call('HGET', KEYS[1], 'first_heard')
    local about = 'refused\n' .. dead .. '\n' .. (first_heard or '') .. ' ' .. value .. '\n' .. id
    local letter = redis.call('HGET', KEYS[3], about)
    if letter then
      letters[#letters + 1] = dead
      letters[#letters + 1] = letter
      letters[#letters + 1] = string.format('%.0f', tonumber(redis.call('ZSCORE', KEYS[4], about) or '0'))
    end
  end
end
return {record, redis.call('ZSCORE', KEYS[2], id) or '', waiting, letters}
