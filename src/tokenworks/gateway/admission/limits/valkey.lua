#!lua name=tokenworks_limits_v1
-- The limit store of base.py inside Valkey/Redis: one call, one atomic step, the server's clock.
-- The library's name carries its version: gateways of two versions use two libraries during an upgrade.
--
--   tw:c:<bucket>:<epoch>   count of one window              string, expires after the window's last refund
--   tw:l:<bucket>           leases of a concurrency bucket   sorted set, request id by expiry in ms
--   tw:h:<request id>       hold                             hash: settled, parts, leases (JSON)
--
-- Numbers are Lua doubles: exact below 2^53, which base.py's caller guarantees.

local REMEMBER_MS = 3600 * 1000
local ABANDONED_MS = 48 * 3600 * 1000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function epoch_of(now, window, offset)
  if window == 0 then return 0 end
  return math.floor((now / 1000 - offset) / window)
end

local function count_key(bucket, epoch)
  return string.format('tw:c:%s:%.0f', bucket, epoch)
end

local function used(claim, now)
  if claim.lease then
    redis.call('ZREMRANGEBYSCORE', 'tw:l:' .. claim.bucket, '-inf', now)
    return redis.call('ZCARD', 'tw:l:' .. claim.bucket)
  end
  return tonumber(redis.call('GET', count_key(claim.bucket, epoch_of(now, claim.window, claim.offset))) or '0')
end

local function until_reset(claim, now)
  if claim.window == 0 then return -1 end
  local epoch = epoch_of(now, claim.window, claim.offset)
  return ((epoch + 1) * claim.window + claim.offset) * 1000 - now
end

local function wait_ms(claim, now)
  if claim.amount > claim.limit then return -1 end
  if not claim.lease then return until_reset(claim, now) end
  local running = redis.call('ZCARD', 'tw:l:' .. claim.bucket)
  local at = redis.call('ZRANGE', 'tw:l:' .. claim.bucket, running - claim.limit, running - claim.limit, 'WITHSCORES')
  if at[2] == nil then return 0 end
  return tonumber(at[2]) - now
end

local function add(bucket, window, offset, epoch, amount)
  local key = count_key(bucket, epoch)
  redis.call('INCRBY', key, string.format('%.0f', amount))
  if window ~= 0 then
    redis.call('PEXPIREAT', key, string.format('%.0f', ((epoch + 2) * window + offset) * 1000))
  end
end

local function first_refusal(claims, now)
  for _, claim in ipairs(claims) do
    local count = used(claim, now)
    if count + claim.amount > claim.limit then
      return {claim.bucket, string.format('%.0f', claim.limit), string.format('%.0f', count),
              string.format('%.0f', wait_ms(claim, now))}
    end
  end
  return nil
end

local function take(id, claims, parts, leases, expires, now)
  for _, claim in ipairs(claims) do
    if claim.lease then
      leases[#leases + 1] = claim.bucket
      redis.call('ZADD', 'tw:l:' .. claim.bucket, expires, id)
    else
      local epoch = epoch_of(now, claim.window, claim.offset)
      add(claim.bucket, claim.window, claim.offset, epoch, claim.amount)
      parts[#parts + 1] = {claim.bucket, claim.window, claim.offset, epoch, claim.amount}
    end
  end
  redis.call('HSET', 'tw:h:' .. id, 'parts', cjson.encode(parts), 'leases', cjson.encode(leases))
end

local function reserve(_, args)
  local id, ttl, claims, now = args[1], tonumber(args[2]), cjson.decode(args[3]), now_ms()
  if redis.call('EXISTS', 'tw:h:' .. id) == 1 then return false end
  local refusal = first_refusal(claims, now)
  if refusal then return refusal end
  redis.call('HSET', 'tw:h:' .. id, 'settled', '0')
  redis.call('PEXPIRE', 'tw:h:' .. id, ABANDONED_MS)
  take(id, claims, {}, {}, now + ttl, now)
  return false
end

local function hold_of(id)
  local fields = redis.call('HMGET', 'tw:h:' .. id, 'settled', 'parts', 'leases')
  if fields[1] ~= '0' then return nil end
  return {parts = cjson.decode(fields[2]), leases = cjson.decode(fields[3])}
end

local function extend(_, args)
  local id, claims, now = args[1], cjson.decode(args[2]), now_ms()
  local hold = hold_of(id)
  if hold == nil then return redis.error_reply('UNKNOWN hold') end
  local refusal = first_refusal(claims, now)
  if refusal then return refusal end
  take(id, claims, hold.parts, hold.leases, now, now)
  return false
end

local function renew(_, args)
  local ttl, now = tonumber(args[1]), now_ms()
  for at = 2, #args do
    local hold = hold_of(args[at])
    if hold then
      for _, bucket in ipairs(hold.leases) do
        redis.call('ZADD', 'tw:l:' .. bucket, now + ttl, args[at])
      end
      redis.call('PEXPIRE', 'tw:h:' .. args[at], ABANDONED_MS)
    end
  end
  return false
end

local function settle(_, args)
  local id, actual, now = args[1], cjson.decode(args[2]), now_ms()
  local hold = hold_of(id)
  if hold == nil then return 0 end
  for _, bucket in ipairs(hold.leases) do redis.call('ZREM', 'tw:l:' .. bucket, id) end
  local difference = {}
  for _, part in ipairs(hold.parts) do
    difference[part[1]] = (difference[part[1]] or (actual[part[1]] or 0)) - part[5]
  end
  local last = {}
  for at = #hold.parts, 1, -1 do
    local part = hold.parts[at]
    last[part[1]] = last[part[1]] or part
    if difference[part[1]] < 0 then
      local refund = math.min(part[5], -difference[part[1]])
      local key = count_key(part[1], part[4])
      if redis.call('EXISTS', key) == 1 then redis.call('DECRBY', key, string.format('%.0f', refund)) end
      difference[part[1]] = difference[part[1]] + refund
    end
  end
  for bucket, rest in pairs(difference) do
    if rest > 0 then
      local part = last[bucket]
      add(bucket, part[2], part[3], epoch_of(now, part[2], part[3]), rest)
    end
  end
  redis.call('HSET', 'tw:h:' .. id, 'settled', '1')
  redis.call('PEXPIRE', 'tw:h:' .. id, REMEMBER_MS)
  return 1
end

local function read(_, args)
  local claims, now, out = cjson.decode(args[1]), now_ms(), {}
  for _, claim in ipairs(claims) do
    out[#out + 1] = string.format('%.0f', used(claim, now))
    out[#out + 1] = string.format('%.0f', until_reset(claim, now))
  end
  return out
end

redis.register_function('tw_reserve_v1', reserve)
redis.register_function('tw_extend_v1', extend)
redis.register_function('tw_renew_v1', renew)
redis.register_function('tw_settle_v1', settle)
redis.register_function('tw_read_v1', read)
