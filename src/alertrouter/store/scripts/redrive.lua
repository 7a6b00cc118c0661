-- redrive: put dead letters back. What they are about is judged again, by the rules and keys of now; nothing is sent here.
-- KEYS  1 due  2 parked  3 dead letters  4 their order  5 history
-- ARGV  1 now  2 prefix of records  3 look (say what would become of them) | redrive | force  4 history length, 0 for none
--       then per letter 7: number, what it is about ("<kind>\n<destination>\n<first heard> <version>\n<id>"), action
--       (trigger|acknowledge|resolve), severity, episode, episode_at, alert (JSON, '' where none is kept)
-- Returns one word per letter: redriven (or, when only looked at, stands), or why not:
--       newer (newer news was heard, told or refused since: that stands, force or not), resolved (the alert is over),
--       gone (there is no record of it any more), unknown (no such letter, or another one by now).
-- With force an alert that is over is told all the same and then resolved, as is one whose record is gone.
local record_prefix, mode, history_length = ARGV[2], ARGV[3], ARGV[4]

-- Told again, as if it had been heard again: a version that was refused stays refused.
local function tell_again(key, id, is_resolved)
  local version = redis.call('HINCRBY', key, 'version', 1)
  redis.call('HSET', key, 'news', 'again', 'outcome', 'pending')
  if is_resolved then redis.call('HSET', key, 'resolved_version', version) end
end

-- Both halves of an episode that is over: it is told, and then resolved.
local function tell_whole(key)
  local version = redis.call('HINCRBY', key, 'version', 2)
  redis.call('HSET', key, 'news', 'again', 'outcome', 'pending', 'suspended_until', '0', 'forced_version', version,
    'fired_version', version - 1, 'resolved_version', version)
end

local function make_anew(key, id, action, severity, episode, episode_at, alert)
  redis.call('HSET', key, 'format', '1', 'id', id, 'status', 'resolved', 'severity', severity, 'episode', episode,
    'episode_at', episode_at, 'alert', alert, 'last_heard', ARGV[1], 'first_heard', ARGV[1], 'window_ends', ARGV[1],
    'hold_until', '0', 'waits', '', 'count', '1', 'version', '0', 'fired_version', '0')
  if action == 'resolve' then tell_again(key, id, true) else tell_whole(key) end
end

local function judge(kind, destination, when, id, at)
  local key, action, alert = record_prefix .. id, ARGV[at + 3], ARGV[at + 7]
  local told = 't:' .. destination .. ':'
  local f = redis.call('HMGET', key, 'version', 'status', 'first_heard', 'poisoned', told .. 'dead')
  if kind == 'unreadable' then
    if redis.call('EXISTS', key) == 0 then return 'gone' end
    return 'redriven', function() end -- judged again as it is, by a program that can read it
  end
  if not f[1] then
    if mode ~= 'force' or alert == '' then return 'gone' end
    return 'redriven', function()
      make_anew(key, id, action, ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], alert)
    end
  end
  local first_heard, version = string.match(when, '^(%d*) (%d+)$')
  if kind == 'poisoned' then
    if f[4] ~= '1' then return 'newer' end
  elseif f[3] ~= first_heard or f[5] ~= version then
    return 'newer'
  end
  local is_resolved = f[2] == 'resolved'
  if is_resolved and action ~= 'resolve' then
    if mode ~= 'force' then return 'resolved' end
    return 'redriven', function()
      redis.call('HDEL', key, 'poisoned', 'takeovers')
      tell_whole(key)
    end
  end
  if kind ~= 'poisoned' and f[1] ~= version then return 'newer' end
  return 'redriven', function()
    redis.call('HDEL', key, 'poisoned', 'takeovers')
    tell_again(key, id, is_resolved)
  end
end

local results = {}
for at = 4, #ARGV - 1, 7 do
  local number, about = ARGV[at + 1], ARGV[at + 2]
  local kind, destination, when, id = string.match(about, '^(%a+)\n([^\n]*)\n([^\n]*)\n(.*)$')
  local result, put_back = 'unknown', nil
  if kind and kind ~= 'body' and tonumber(redis.call('ZSCORE', KEYS[4], about) or '-1') == tonumber(number) then
    result, put_back = judge(kind, destination, when, id, at)
  end
  if mode == 'look' then
    if result == 'redriven' then result = 'stands' end
  elseif put_back then
    local key = record_prefix .. id
    -- due before anything else: were something below to fail, it would be looked at for nothing, and not lost
    redis.call('ZADD', KEYS[1], 'LT', ARGV[1], id)
    put_back()
    redis.call('PERSIST', key)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HDEL', KEYS[3], about)
    redis.call('ZREM', KEYS[4], about)
    if history_length ~= '0' then
      redis.call('XADD', KEYS[5], 'MAXLEN', '~', history_length, '*', 'kind', 'letter', 'id', id, 'at', ARGV[1],
        'result', 'redriven', 'destination', destination, 'version', string.match(when, ' (%d+)$') or '0',
        'reason', mode == 'force' and 'forced' or '')
    end
  end
  results[#results + 1] = result
end
return results
