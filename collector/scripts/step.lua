-- Moves a lane to another phase if it is in one that may become it.
-- Input:  KEYS[1] lane    ARGV[1] new phase    ARGV[2..] phases it may be entered from
-- Output: {phase, count, epochs}, or {'gone'}
local lane = redis.call('HMGET', KEYS[1], 'phase', 'count', 'epochs')
if not lane[1] then
  return {'gone'}
end
for i = 2, #ARGV do
  if lane[1] == ARGV[i] then
    redis.call('HSET', KEYS[1], 'phase', ARGV[1])
    return {ARGV[1], lane[2], lane[3]}
  end
end
-- Written again for a caller that waits for replicas: they may not have the step before yet.
redis.call('HSET', KEYS[1], 'phase', lane[1])
return lane
