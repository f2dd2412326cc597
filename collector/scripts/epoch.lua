-- Gives an incarnation the next epoch of a lane.
-- Input:  KEYS[1] lane    KEYS[2] meta of the proposed epoch
--         ARGV[1] proposed epoch    ARGV[2] incarnation, 16 bytes
-- Output: {'OK'}, {'RACE', newest epoch} if the proposal is not the next one, {'SEALED'}, {'LOST'}
local lane = redis.call('HMGET', KEYS[1], 'phase', 'epochs')
if not lane[1] or lane[1] == 'damaged' then
  return {'LOST'}
end
if lane[1] ~= 'open' and lane[1] ~= 'closing' then
  return {'SEALED'}
end
if tonumber(ARGV[1]) ~= tonumber(lane[2]) + 1 then
  return {'RACE', lane[2]}
end
-- A meta of an epoch that was never handed out: the lane was restored from an older state.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return {'LOST'}
end
redis.call('HSET', KEYS[1], 'epochs', ARGV[1])
redis.call('HSET', KEYS[2], 'who', ARGV[2], 'seq', '0', 'n', '0')
return {'OK'}
