-- Debit the first candidate whose charges all fit, all of them or none.

-- What a bucket would be drained if the replaced reservation gave back what it holds of it.
local function without(replaced, c, drained, at)
  for i = 1, #replaced.charges do
    local held = replaced.charges[i]
    if held[OWNER] == c[OWNER] and held[LIMIT] == c[LIMIT] then
      return correct(c, drained, at, -held[CHARGED], held[MARK])
    end
  end
  return drained
end

-- What is in the way, three numbers for each bucket: which charge, left, wait. Nil if nothing is.
-- Those ahead in line for a bucket are left what they wait for.
local function try(charges, replaced, ahead)
  local short
  for i = 1, #charges do
    local c = charges[i]
    local b, o = bucket_of(c)
    local drained, at = advance(c, b)
    if replaced then drained = without(replaced, c, drained, at) end
    local before = ahead and ahead[c[OWNER] .. c[LIMIT]] or 0
    local fits = room(c, drained + before)
    if fits then
      c[BUCKET_OF], c[HOLDER], c[LEVEL], c[AT], c[GRANTED] = b, o, drained, at, fits
    else
      short = short or {}
      local s = #short
      short[s + 1], short[s + 2] = i - 1, c[CEILING] - drained
      short[s + 3] = wait(c, drained, at, c[LEAST], before)
    end
  end
  return short
end

local function admit(id, choice, charges, raw, raw_at, passed, lease)
  local count = #charges
  local said = { choice - 1, count }
  local expires = now + lease
  local longest = 0
  for i = 1, count do said[2 + i] = charges[i][GRANTED] end
  for i = 1, count do
    local c = charges[i]
    local b, o, amount = c[BUCKET_OF], c[HOLDER], c[GRANTED]
    local drained = c[LEVEL] + amount
    if amount > 0 then
      put(c, b, o, drained, c[KIND] >= IN_FLIGHT and math.max(c[AT], expires) or c[AT])
      b[HOLDS] = b[HOLDS] + amount
      if expires > o.held_until then o.held_until = expires end
      if b[FULL] - now > longest then longest = b[FULL] - now end
    end
    c[CHARGED], c[MARK] = amount, c[AT]
    said[2 + count + i] = c[CEILING] - drained
  end
  for i = 1, #passed do said[#said + 1] = passed[i] end
  local answer = 'A' .. pack_all(said)
  records[id] = { status = 'o', expires = expires, answer = answer, charges = charges, raw = raw,
    raw_at = raw_at, longest = longest, dirty = true }
  open_lease(id, expires)
  return answer
end

-- The seconds until a candidate fits, and the same if calls in flight ended at once.
local function longest(charges, short)
  local most, least = 0, 0
  for i = 1, #short, 3 do
    local seconds = short[i + 2]
    if seconds > most then most = seconds end
    if charges[short[i] + 1][KIND] < IN_FLIGHT or seconds == INF then
      least = math.max(least, seconds)
    end
  end
  return most, least
end

local function reserve(id, op)
  local who = {}
  local lease, patience, count, instead_of, at
  lease, patience, who.priority, who.weight, who.flow, who.process, count, instead_of, at =
    read('<ddddc20c8I2I4c0', op, 2)
  local known = record_of(id)
  if known and #known.answer > 0 then return known.answer end
  local candidates, starts, line = {}, {}, patience > 0
  for i = 1, count do
    local size = read('<I2', op, at)
    candidates[i] = read_charges(op, at + 2, size)
    if not in_reach(candidates[i]) then return 'W' end
    starts[i] = at + 2
    at = at + 2 + size * CHARGE_SIZE
    for j = 1, line and 0 or size do
      line = line or owner_of(candidates[i][j][OWNER]).waited > now
    end
  end
  local replaced = #instead_of > 0 and record_of(instead_of)
  if replaced and replaced.status ~= 'o' then replaced = false end
  local waiter, ahead
  if line then
    waiter = waiter_of(id)
    ahead = those_ahead(id, who, waiter, candidates)
  end
  local passed, shorts = {}, {}
  local soonest, at_least, choice = INF, INF, 1
  for i = 1, count do
    local charges = candidates[i]
    local short = try(charges, replaced, ahead)
    if not short then
      if line then serve(who, waiter, charges) end
      if replaced then recharge(replaced, zeros(replaced)) end
      return admit(id, i, charges, op, starts[i], passed, lease)
    end
    shorts[i] = short
    passed[#passed + 1] = #short / 3
    for j = 1, #short do passed[#passed + 1] = short[j] end
    local most, least = longest(charges, short)
    if most < soonest then soonest, choice = most, i end
    if least < at_least then at_least = least end
  end
  if patience > 0 and patience >= at_least and at_least < INF then
    local charges, raw = candidates[choice], starts[choice]
    return 'Q' .. pack_all({ join(id, who, waiter, charges, shorts[choice], op, raw, patience) })
      .. pack_all(passed)
  end
  if waiter then leave(waiter, {}) end
  return 'R' .. pack_all(passed)
end
