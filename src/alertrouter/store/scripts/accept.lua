-- accept: take alerts in, tell duplicates from news.
-- KEYS  1 due  2 history  3 parked  4.. one alert record per alert, in the order of ARGV
-- ARGV  1 now  2 window  3 resend_after  4 hold (all ms)  5 dedup mode: rolling | fixed  6 history length, 0 for none
--       7 prefix of wait queues  8 replayed (0|1): heard at `now`, long ago perhaps, and told of only now
--       then per alert 8: id, status, severity, episode, episode_at, ended_at, alert (JSON), digest of its content
--       ('' where another content is no news, '-' where it says nothing: what is there of it stays)
-- Returns one word per alert: the kind of news (new, episode, severity, content, status, refresh, again),
--       or duplicate, or stale, or older (replayed, and newer has been heard since), or error (the key holds something that is not ours).
-- Numbers come and go as text: Lua prints them with 14 digits only, enough for milliseconds and no more.
local now, window, resend_after, hold = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local rolling, history_length, replayed = ARGV[5] == 'rolling', ARGV[6], ARGV[8] == '1'

local function put_down(...)
  if history_length ~= '0' then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', history_length, '*', 'at', ARGV[1], 'kind', ...)
  end
end

-- Duplicates that come in a row are one entry, "<status> <id>" each: a storm of them must not push out the rest.
local repeated = {}
local function put_down_repeated()
  if #repeated > 0 then put_down('duplicate', 'heard', cjson.encode(repeated)) end
  repeated = {}
end

-- Another occurrence than the record's: another name, and a later start where both are dated.
local function is_later(r, episode, episode_at)
  if episode == '' or r.episode == '' or episode == r.episode then return false end
  return episode_at == 0 or r.episode_at == 0 or episode_at > r.episode_at
end

-- firing on top of a firing or acknowledged record
local function heard_again(r, severity, episode, episode_at, content)
  if r.fired_version == 0 then return 'new' end -- acknowledged, and never heard firing before
  if is_later(r, episode, episode_at) then return 'episode' end
  if severity ~= r.severity then return 'severity' end
  if content ~= '' and content ~= r.content then return 'content' end
  if r.outcome == 'pending' then return 'duplicate' end
  if r.outcome ~= 'delivered' then return 'again' end
  if r.status == 'acknowledged' then return 'duplicate' end
  if now >= r.delivered_at + resend_after or now >= r.window_ends then return 'refresh' end
  return 'duplicate'
end

local function judge(r, status, severity, episode, episode_at, ended_at, content)
  if not r then
    if status == 'firing' then return 'new' end
    return 'status'
  end
  if status == 'firing' then
    if r.status == 'resolved' then return 'new' end
    return heard_again(r, severity, episode, episode_at, content)
  end
  if status == 'acknowledged' then
    if r.status == 'acknowledged' then return 'duplicate' end
    return 'status'
  end
  if r.status == 'resolved' then
    if r.outcome == 'dead_lettered' then return 'again' end
    return 'duplicate'
  end
  -- a close older than the episode it would close is a lost page
  if ended_at > 0 and ended_at < r.episode_at then return 'stale' end
  return 'status'
end

local results = {}
for i = 1, #KEYS - 3 do
  local key, at = KEYS[i + 3], 8 + (i - 1) * 8
  local id, status, severity, episode = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local episode_at, ended_at, alert = tonumber(ARGV[at + 5]), tonumber(ARGV[at + 6]), ARGV[at + 7]
  local content = ARGV[at + 8]
  local f = redis.pcall('HMGET', key, 'version', 'status', 'severity', 'episode', 'episode_at', 'window_ends',
    'outcome', 'delivered_at', 'waits', 'fired_version', 'last_heard', 'repeated_at', 'hold_until', 'news')
  local kind
  if f.err then
    kind = 'error'
  else
    local r = nil
    if f[1] then
      r = {status = f[2], severity = f[3], episode = f[4], episode_at = tonumber(f[5]), window_ends = tonumber(f[6]),
        outcome = f[7], delivered_at = tonumber(f[8] or '0'), fired_version = tonumber(f[10] or '0'),
        content = content ~= '' and redis.call('HGET', key, 'content') or nil}
    end
    if replayed and r and math.max(tonumber(f[11]), tonumber(f[12] or '0')) > now then
      kind = 'older'
    else
      kind = judge(r, status, severity, episode, episode_at, ended_at, content)
    end
    if kind == 'duplicate' then
      if id ~= 'alertrouter:canary' then repeated[#repeated + 1] = status .. ' ' .. id end
      redis.call('HINCRBY', key, 'count', 1)
      if status == 'firing' then
        redis.call('HSET', key, 'last_heard', ARGV[1])
        if rolling then redis.call('HSET', key, 'window_ends', string.format('%.0f', now + window)) end
      elseif status == 'resolved' then
        redis.call('HSET', key, 'repeated_at', ARGV[1]) -- what is told of later, and was heard before, does not undo it
      end
    elseif kind == 'stale' then
      put_down_repeated()
      put_down('heard', 'id', id, 'news', kind, 'alert', alert, 'outcome', 'stale',
        'reason', 'a resolve older than the episode now firing')
    elseif kind == 'older' then
      put_down_repeated()
      put_down('heard', 'id', id, 'news', kind, 'alert', alert) -- what was heard since stands
    else
      put_down_repeated()
      -- due before it is heard: were anything below to fail, it would be looked at for nothing, and not lost
      redis.call('ZADD', KEYS[1], 'LT', ARGV[1], id)
      local version = redis.call('HINCRBY', key, 'version', 1)
      local hold_until = '0'
      local is_copy = r and episode ~= '' and not is_later(r, episode, episode_at) and r.episode ~= ''
      if kind == 'new' and is_copy and f[14] ~= 'silent' then -- what we resolved for its silence was not over
        hold_until = string.format('%.0f', now + hold) -- a late copy of what is already resolved
      elseif kind == 'severity' and f[13] then
        hold_until = f[13] -- and of another severity it is one still
      end
      if r and r.episode_at > episode_at then
        episode, episode_at = r.episode, r.episode_at
      end
      if kind == 'again' and r.status == 'acknowledged' then status = 'acknowledged' end -- somebody has it in hand
      local says_nothing = content == '-' and r
      if says_nothing then severity = r.severity end
      local fields = {'format', '1', 'id', id, 'status', status, 'severity', severity, 'news', kind,
        'episode', episode, 'episode_at', string.format('%.0f', episode_at), 'outcome', 'pending',
        'last_heard', ARGV[1], 'window_ends', string.format('%.0f', now + window), 'hold_until', hold_until,
        'waits', ''}
      local function set(name, value)
        fields[#fields + 1], fields[#fields + 2] = name, value
      end
      if kind == 'new' or kind == 'episode' then
        set('suspended_until', '0')
        set('fired_version', version)
      end
      if not says_nothing then set('alert', alert) end
      if content ~= '' and content ~= '-' then set('content', content) end
      -- an acknowledgement of what is not firing is passed on, and opens nothing
      if status == 'acknowledged' and not (r and r.status == 'firing') and kind == 'status' then
        set('fired_version', '0')
      end
      if status == 'resolved' then set('resolved_version', version) end
      if r then
        redis.call('HINCRBY', key, 'count', 1)
        redis.call('PERSIST', key)
        redis.call('ZREM', KEYS[3], id)
        if kind == 'new' then redis.call('HDEL', key, 'poisoned', 'takeovers') end
      else
        set('first_heard', ARGV[1])
        set('count', '1')
      end
      redis.call('HSET', key, unpack(fields)) -- one call: each costs as much as an entry of the history
      -- news goes back to be judged; what was waiting to be sent may be wrong now
      if f[9] and f[9] ~= '' then
        for queue, place in string.gmatch(f[9], '([^\t\n]*)\t([^\n]*)') do
          redis.call('ZREM', ARGV[7] .. queue, place .. '\t' .. id)
        end
      end
      if id ~= 'alertrouter:canary' then -- ours, three times a minute, and nobody asks what became of it
        put_down('heard', 'id', id, 'news', kind, 'version', version, 'alert', alert)
      end
    end
  end
  results[i] = kind
end
put_down_repeated()
return results
