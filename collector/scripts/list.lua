-- Puts a round into the list that ingest processes follow, or takes it off.
-- Input:  KEYS[1] list    KEYS[2] version
--         ARGV[1] new version    ARGV[2] round    ARGV[3] its record; empty takes it off
-- Output: 'OK'
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[2])
else
  redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
redis.call('SET', KEYS[2], ARGV[1])
return 'OK'
