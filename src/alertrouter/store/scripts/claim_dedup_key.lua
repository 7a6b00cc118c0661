-- claim_dedup_key: keep a client's dedup_key for the first alert that is told under it by a routing key.
-- KEYS  1 whose it is  2.. members of the incidents that rules make under that key, one for each destination of the routing key
-- ARGV  1 id of the alert  2 how long a claim is remembered that nobody asks after (ms)
-- Returns 1 if it is this alert's, 0 if another's or that of a shared incident.
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return 0 end
if not owner then
  for i = 2, #KEYS do
    if redis.call('EXISTS', KEYS[i]) == 1 then return 0 end
  end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
