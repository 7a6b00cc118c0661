-- join_incident: an alert is about to be told under a key that it shares with others.
-- KEYS  1 members of the incident
-- ARGV  1 id
-- Returns 1, or 0 where it had joined before.
return redis.call('SADD', KEYS[1], ARGV[1])
