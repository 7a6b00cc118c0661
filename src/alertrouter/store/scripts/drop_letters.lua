-- drop_letters: let go of dead letters. What they are about stays as it is.
-- KEYS  1 dead letters  2 their order  3 history
-- ARGV  1 now  2 prefix of bodies  3 history length, 0 for none  4 what becomes of them (dropped|redriven|spilled)
--       5 why  then per letter 2: number, what it is about
-- Returns per letter 1, or 0 where it is gone or is another one by now.
local results = {}
for at = 5, #ARGV - 1, 2 do
  local number, about = ARGV[at + 1], ARGV[at + 2]
  local kind, where, when, id = string.match(about, '^(%a+)\n([^\n]*)\n([^\n]*)\n(.*)$')
  if kind and tonumber(redis.call('ZSCORE', KEYS[2], about) or '-1') == tonumber(number) then
    redis.call('HDEL', KEYS[1], about)
    redis.call('ZREM', KEYS[2], about)
    if kind == 'body' then redis.call('ZREM', ARGV[2] .. where, about) end
    if ARGV[3] ~= '0' then
      redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'kind', 'letter', 'id', id, 'at', ARGV[1],
        'result', ARGV[4], 'destination', where, 'version', string.match(when, ' (%d+)$') or '0', 'reason', ARGV[5])
    end
    results[#results + 1] = 1
  else
    results[#results + 1] = 0
  end
end
return results
