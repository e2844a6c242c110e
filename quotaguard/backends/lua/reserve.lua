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
local function try(charges, replaced)
  local short
  for i = 1, #charges do
    local c = charges[i]
    local b, o = bucket_of(c)
    local drained, at = advance(c, b)
    if replaced then drained = without(replaced, c, drained, at) end
    local fits = room(c, drained)
    if fits then
      c[BUCKET_OF], c[HOLDER], c[LEVEL], c[AT], c[GRANTED] = b, o, drained, at, fits
    else
      short = short or {}
      local s = #short
      short[s + 1], short[s + 2] = i - 1, c[CEILING] - drained
      short[s + 3] = wait(c, drained, at, c[LEAST])
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
      put(c, b, o, drained, c[AT])
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

local function next_expiry()
  local first = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) - now or INF
end

-- Whoever gives one of these buckets something back is to say so.
local function stand_in_line(charges, short, patience)
  for i = 1, #short, 3 do
    local o = owner_of(charges[short[i] + 1][OWNER])
    o.waited, o.dirty = math.max(o.waited, now + patience), true
  end
end

local function reserve(id, op)
  local lease, patience, count, instead_of, at = read('<ddI2I4c0', op, 2)
  local known = record_of(id)
  if known and #known.answer > 0 then return known.answer end
  local candidates, starts = {}, {}
  for i = 1, count do
    local size = read('<I2', op, at)
    candidates[i] = read_charges(op, at + 2, size)
    if not in_reach(candidates[i]) then return 'W' end
    starts[i] = at + 2
    at = at + 2 + size * CHARGE_SIZE
  end
  local replaced = #instead_of > 0 and record_of(instead_of)
  if replaced and replaced.status ~= 'o' then replaced = false end
  local passed = {}
  for choice = 1, count do
    local charges = candidates[choice]
    local short = try(charges, replaced)
    if not short then
      if replaced then recharge(replaced, zeros(replaced)) end
      return admit(id, choice, charges, op, starts[choice], passed, lease)
    end
    passed[#passed + 1] = #short / 3
    for i = 1, #short do passed[#passed + 1] = short[i] end
    if patience > 0 then stand_in_line(charges, short, patience) end
  end
  local expiry = patience > 0 and next_expiry() or INF
  return 'R' .. pack_all({ expiry, unpack(passed) })
end
