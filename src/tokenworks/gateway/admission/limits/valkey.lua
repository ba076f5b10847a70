#!lua name=tokenworks_limits_v2
-- The limit store of base.py inside Valkey/Redis: one call, one atomic step, the server's clock.
-- The library and its functions carry their version, the keys do not: gateways of two versions share counts in an upgrade.
--
--   tw:c:<bucket>:<epoch>   one window: u used, s of it slack   hash, expires one window after its end
--   tw:l:<bucket>           leases of a concurrency bucket      sorted set, request id by expiry
--   tw:h:<request id>       hold: settled, parts, leases        MessagePack
--   tw:open                 holds that run                      sorted set, request id by expiry
--   tw:gateways             gateways that live                  sorted set, id by expiry
--   tw:clock                last time seen, lead, lease clock   "ms ms ms"
--   tw:born                 generation: when this store began   lease clock, ms
--
-- Numbers are Lua doubles: exact below 2^53, which valkey.py guarantees.

local REMEMBER_MS = 3600 * 1000
local ABANDONED_MS = 48 * 3600 * 1000
local IDLE_BUDGET_MS = 90 * 86400 * 1000
local MARGIN_MS = 60 * 1000
local LONGEST_SILENCE_MS = 10 * 1000
local REBUILD_MS = 2000
local FOREVER, DAY, WEEK, MONTH = 0, -1, -2, -3
local BUCKET, AMOUNT, LEAST, ENOUGH, LIMIT, WINDOW, OFFSET, LEASE, FLOOR, SINCE = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local P_BUCKET, P_WINDOW, P_OFFSET, P_EPOCH, P_AMOUNT, P_SLACK, P_BUDGET = 1, 2, 3, 4, 5, 6, 7

local function text(number) return string.format('%.0f', number) end

-- `time` goes on where the wall is set back, so that no window opens twice. `lease` also makes no leap: gateways call
-- every second, so a longer silence is a clock set forward, which must not end everybody's leases.
local function clock()
  local now = redis.call('TIME')
  local wall = now[1] * 1000 + math.floor(now[2] / 1000)
  local last, lead, lease = wall, 0, wall
  local known = redis.call('GET', 'tw:clock')
  if known then
    local a, b, c = string.match(known, '^(%d+) (%d+) (%d+)$')
    last, lead, lease = tonumber(a), tonumber(b), tonumber(c)
  end
  local passed = wall - last
  if passed < 0 then
    lead = lead - passed
    passed = 0
  end
  lease = lease + math.min(passed, LONGEST_SILENCE_MS)
  redis.call('SET', 'tw:clock', text(wall) .. ' ' .. text(lead) .. ' ' .. text(lease))
  return {wall = wall, time = wall + lead, lease = lease}
end

local function generation(now)
  local born = redis.call('GET', 'tw:born')
  if born then return tonumber(born) end
  redis.call('SET', 'tw:born', text(now.lease))
  return now.lease
end

local function month_of(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local year = yoe + era * 400
  if mp < 10 then return year * 12 + mp + 2 end
  return (year + 1) * 12 + mp - 10
end

local function days_of(epoch)
  local year, month = math.floor(epoch / 12), epoch % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local yoe = year - era * 400
  local doy = math.floor((153 * (month > 2 and month - 3 or month + 9) + 2) / 5)
  return era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
end

local function moment(now, window) return window >= 0 and now.time or now.wall end

local function epoch_of(now, window, offset)
  if window == FOREVER then return 0 end
  local seconds = moment(now, window) / 1000 - offset
  if window > 0 then return math.floor(seconds / window) end
  local days = math.floor(seconds / 86400)
  if window == DAY then return days end
  if window == WEEK then return math.floor((days + 3) / 7) end
  return month_of(days)
end

local function until_reset(now, window, offset)
  if window == FOREVER then return -1 end
  local following, begins = epoch_of(now, window, offset) + 1, nil
  if window > 0 then begins = following * window
  elseif window == MONTH then begins = days_of(following) * 86400
  elseif window == WEEK then begins = (following * 7 - 3) * 86400
  else begins = following * 86400 end
  return (begins + offset) * 1000 - moment(now, window)
end

local function count_key(bucket, epoch) return 'tw:c:' .. bucket .. ':' .. text(epoch) end

local function add(now, bucket, window, offset, epoch, amount, slack)
  local key = count_key(bucket, epoch)
  local count = redis.call('HINCRBY', key, 'u', text(amount))
  if slack ~= 0 then redis.call('HINCRBY', key, 's', text(slack)) end
  if window == FOREVER then
    redis.call('PEXPIRE', key, IDLE_BUDGET_MS)
  elseif count == amount then
    local span = window > 0 and window * 1000 or 32 * 86400 * 1000
    redis.call('PEXPIRE', key, text(until_reset(now, window, offset) + span + MARGIN_MS))
  end
end

local function used(claim, now)
  if claim[LEASE] == 1 then
    redis.call('ZREMRANGEBYSCORE', 'tw:l:' .. claim[BUCKET], '-inf', now.lease)
    return redis.call('ZCARD', 'tw:l:' .. claim[BUCKET]), 0
  end
  local epoch = epoch_of(now, claim[WINDOW], claim[OFFSET])
  local found = redis.call('HMGET', count_key(claim[BUCKET], epoch), 'u', 's')
  local count = tonumber(found[1] or '0')
  if claim[FLOOR] > count and claim[SINCE] == epoch then
    add(now, claim[BUCKET], claim[WINDOW], claim[OFFSET], epoch, claim[FLOOR] - count, 0)
    count = claim[FLOOR]
  end
  return count, tonumber(found[2] or '0')
end

local function wait_ms(claim, now)
  if claim[LEAST] > claim[LIMIT] then return -1 end
  if claim[LEASE] == 0 then return until_reset(now, claim[WINDOW], claim[OFFSET]) end
  local at = redis.call('ZRANGE', 'tw:l:' .. claim[BUCKET], -claim[LIMIT], -claim[LIMIT], 'WITHSCORES')
  if at[2] == nil then return 0 end
  return tonumber(at[2]) - now.lease
end

-- Answer: which claim is refused (0: none), 1 while budgets are rebuilt, slack and wait of that claim,
-- then for each claim used, reset in ms, granted.
local function answer(refused, rebuilding, slack, wait, claims, counts, granted, now)
  local out = {refused, rebuilding, slack, wait}
  for at, claim in ipairs(claims) do
    out[#out + 1] = counts[at]
    out[#out + 1] = until_reset(now, claim[WINDOW], claim[OFFSET])
    out[#out + 1] = granted[at] or 0
  end
  return cmsgpack.pack(out)
end

local function grant(claims, counts, now, born)
  local granted, refused = {}, nil
  for at, claim in ipairs(claims) do
    local count, slack = used(claim, now)
    counts[at] = count
    local room = claim[LIMIT] - count
    if refused == nil and claim[FLOOR] >= 0 and now.lease < born + REBUILD_MS then
      refused = {at, 1, slack, born + REBUILD_MS - now.lease}
    elseif claim[AMOUNT] <= room then
      granted[at] = claim[AMOUNT]
    elseif claim[LEAST] <= room then
      granted[at] = math.max(claim[LEAST], math.min(claim[ENOUGH], room))
    elseif refused == nil then
      refused = {at, 0, slack, wait_ms(claim, now)}
    end
  end
  return granted, refused
end

local function save(id, hold, ttl) redis.call('SET', 'tw:h:' .. id, cmsgpack.pack(hold), 'PX', ttl) end

local function load(id)
  local packed = redis.call('GET', 'tw:h:' .. id)
  return packed and cmsgpack.unpack(packed) or nil
end

local function take(id, hold, claims, counts, granted, expires, now)
  for at, claim in ipairs(claims) do
    if claim[LEASE] == 1 then
      hold.leases[#hold.leases + 1] = claim[BUCKET]
      redis.call('ZADD', 'tw:l:' .. claim[BUCKET], expires, id)
    else
      local epoch = epoch_of(now, claim[WINDOW], claim[OFFSET])
      local slack = granted[at] - math.min(claim[LEAST], granted[at])
      add(now, claim[BUCKET], claim[WINDOW], claim[OFFSET], epoch, granted[at], slack)
      hold.parts[#hold.parts + 1] = {
        claim[BUCKET], claim[WINDOW], claim[OFFSET], epoch, granted[at], slack, claim[FLOOR] >= 0 and 1 or 0}
    end
    counts[at] = counts[at] + granted[at]
  end
  save(id, hold, ABANDONED_MS)
end

local function refund(part, amount, slack)
  local key = count_key(part[P_BUCKET], part[P_EPOCH])
  if (amount ~= 0 or slack ~= 0) and redis.call('EXISTS', key) == 1 then
    if amount ~= 0 then redis.call('HINCRBY', key, 'u', text(-amount)) end
    if slack ~= 0 then redis.call('HINCRBY', key, 's', text(-slack)) end
  end
end

-- A few at a time: every reservation helps to clear away what dead gateways left.
local function sweep(now)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', 'tw:open', '-inf', now.lease, 'LIMIT', 0, 8)) do
    redis.call('ZREM', 'tw:open', id)
    local hold = load(id)
    if hold and not hold.settled then
      for _, bucket in ipairs(hold.leases) do redis.call('ZREM', 'tw:l:' .. bucket, id) end
      for _, part in ipairs(hold.parts) do
        refund(part, part[P_BUDGET] == 1 and part[P_AMOUNT] or 0, part[P_SLACK])
        part[P_SLACK] = 0
        if part[P_BUDGET] == 1 then part[P_AMOUNT] = 0 end
      end
      save(id, hold, ABANDONED_MS)
    end
  end
end

local function held(hold, claim)
  local sum = 0
  for _, part in ipairs(hold.parts) do
    if part[P_BUCKET] == claim[BUCKET] then sum = sum + part[P_AMOUNT] end
  end
  return claim[LEASE] == 1 and 1 or sum
end

local function reserve(_, args)
  local id, ttl, claims, force = args[1], tonumber(args[2]), cmsgpack.unpack(args[3]), args[4] == '1'
  local now, counts, granted, refused = clock(), {}, {}, nil
  local born = generation(now)
  sweep(now)
  local known = load(id)
  if known then
    for at, claim in ipairs(claims) do
      counts[at] = used(claim, now)
      granted[at] = known.settled and 0 or held(known, claim)
    end
    return answer(0, 0, 0, 0, claims, counts, granted, now)
  end
  if force then
    for at, claim in ipairs(claims) do
      counts[at] = used(claim, now)
      granted[at] = claim[AMOUNT]
    end
  else
    granted, refused = grant(claims, counts, now, born)
    if refused then return answer(refused[1], refused[2], refused[3], refused[4], claims, counts, {}, now) end
  end
  redis.call('ZADD', 'tw:open', now.lease + ttl, id)
  take(id, {settled = false, parts = {}, leases = {}}, claims, counts, granted, now.lease + ttl, now)
  return answer(0, 0, 0, 0, claims, counts, granted, now)
end

local function extend(_, args)
  local id, claims, now, counts = args[1], cmsgpack.unpack(args[2]), clock(), {}
  local hold = load(id)
  if hold == nil or hold.settled then return redis.error_reply('UNKNOWN hold') end
  local granted, refused = grant(claims, counts, now, generation(now))
  if refused then return answer(refused[1], refused[2], refused[3], refused[4], claims, counts, {}, now) end
  take(id, hold, claims, counts, granted, now.lease, now)
  return answer(0, 0, 0, 0, claims, counts, granted, now)
end

local function renew(_, args)
  local gateway, ttl, now = args[1], tonumber(args[2]), clock()
  local born = generation(now)
  sweep(now)
  for at = 3, #args do
    local hold = load(args[at])
    if hold and not hold.settled then
      for _, bucket in ipairs(hold.leases) do redis.call('ZADD', 'tw:l:' .. bucket, now.lease + ttl, args[at]) end
      redis.call('ZADD', 'tw:open', now.lease + ttl, args[at])
      redis.call('PEXPIRE', 'tw:h:' .. args[at], ABANDONED_MS)
    end
  end
  redis.call('ZREMRANGEBYSCORE', 'tw:gateways', '-inf', now.lease)
  redis.call('ZADD', 'tw:gateways', now.lease + ttl, gateway)
  return cmsgpack.pack({born, redis.call('ZCARD', 'tw:gateways')})
end

local function settle(_, args)
  local id, actual, now = args[1], cmsgpack.unpack(args[2]), clock()
  local hold = load(id)
  if hold == nil then save(id, {settled = true}, REMEMBER_MS) end -- its reservation may still be on its way here
  if hold == nil or hold.settled then return 0 end
  for _, bucket in ipairs(hold.leases) do redis.call('ZREM', 'tw:l:' .. bucket, id) end
  redis.call('ZREM', 'tw:open', id)
  local difference, last = {}, {}
  for _, part in ipairs(hold.parts) do
    local bucket = part[P_BUCKET]
    difference[bucket] = (difference[bucket] or (actual[bucket] or 0)) - part[P_AMOUNT]
    last[bucket] = part
  end
  for at = #hold.parts, 1, -1 do
    local part = hold.parts[at]
    local back = math.min(part[P_AMOUNT], math.max(-difference[part[P_BUCKET]], 0))
    refund(part, back, part[P_SLACK])
    difference[part[P_BUCKET]] = difference[part[P_BUCKET]] + back
  end
  for bucket, rest in pairs(difference) do
    if rest > 0 then
      local part = last[bucket]
      add(now, bucket, part[P_WINDOW], part[P_OFFSET], epoch_of(now, part[P_WINDOW], part[P_OFFSET]), rest, 0)
    end
  end
  save(id, {settled = true}, REMEMBER_MS)
  return 1
end

local function read(_, args)
  local claims, now, counts = cmsgpack.unpack(args[1]), clock(), {}
  for at, claim in ipairs(claims) do counts[at] = used(claim, now) end
  return answer(0, 0, 0, 0, claims, counts, {}, now)
end

redis.register_function('tw_reserve_v2', reserve)
redis.register_function('tw_extend_v2', extend)
redis.register_function('tw_renew_v2', renew)
redis.register_function('tw_settle_v2', settle)
redis.register_function('tw_read_v2', read)
