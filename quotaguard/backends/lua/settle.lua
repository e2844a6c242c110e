-- What became of a reservation: charged as used, given back, renewed, expired.

local the_settling

local function settling()
  if the_settling then return the_settling end
  -- Bring what the buckets are charged for a reservation to these amounts.
  local function recharge(r, amounts)
    local left, charges, open = {}, r.charges, r.status == 'o'
    for i = 1, #charges do
      local c, amount = charges[i], amounts[i]
      if c[KIND] >= IN_FLIGHT then amount = 0 end
      local b, o = bucket_of(c)
      local change = amount - c[CHARGED]
      local drained, at = advance(c, b)
      drained = correct(c, drained, at, change, c[MARK])
      put(c, b, o, drained, at)
      if open then b[HOLDS] = b[HOLDS] + change end
      if o.waited > now then line().free(c) end
      c[CHARGED] = amount
      left[i] = c[CEILING] - drained
    end
    r.dirty = true
    return left
  end

  local function zeros(r)
    local amounts = {}
    for i = 1, #r.charges do amounts[i] = 0 end
    return amounts
  end

  local function close(id, r, status)
    if r.status == 'o' then
      for i = 1, #r.charges do
        local b, o = bucket_of(r.charges[i])
        b[HOLDS], o.dirty = b[HOLDS] - r.charges[i][CHARGED], true
      end
      close_lease(id)
    end
    r.status, r.dirty = status, true
  end

  local function granted(r)
    local _, count = read('<dd', r.answer, 2)
    return { read(doubles(count), r.answer, 18) }
  end

  local function settled(first, late, left)
    return 'S' .. pack_all({ first, late, unpack(left) })
  end

  -- The server lost a reservation (FLUSHALL, a restart) whose charges the client still knows: what was
  -- used is charged to the buckets as they are now.
  local function charge_anew(id, charges, amounts)
    for i = 1, #charges do amounts[i] = amounts[i] or charges[i][AMOUNT] end
    local r = { status = 's', expires = 0, answer = '', charges = charges }
    records[id] = r
    return settled(1, 1, recharge(r, amounts))
  end

  local function settle(id, op)
    local insist, count, told, at = read('<BI2I2', op, 2)
    local amounts = { read(doubles(count), op, at) }
    local charges = read_charges(op, at + 8 * count, told)
    if not in_reach(charges) then return 'W' end
    local r = record_of(id)
    if not r then
      if told > 0 then return charge_anew(id, charges, count > 0 and amounts or {}) end
      return insist == 1 and settled(0, 1, {}) or 'U'
    end
    if r.status == 's' then return settled(0, #r.answer == 0 and 1 or 0, {}) end
    for i = 1, told do
      for field = RATE, NEXT do r.charges[i][field] = charges[i][field] end
    end
    if insist == 0 and not in_reach(r.charges) then return 'W' end
    local late = r.status == 'e' and 1 or 0
    local left = recharge(r, count > 0 and amounts or granted(r))
    close(id, r, 's')
    return settled(1, late, left)
  end

  local function release(id)
    local waiter = line().waiter_of(id)
    if waiter then line().leave(waiter, {}) end
    local r = record_of(id)
    if r and r.status == 'o' then
      recharge(r, zeros(r))
      close(id, r, 's')
    end
    return 'N'
  end

  local function renew(id, op)
    local r = record_of(id)
    if not r or r.status ~= 'o' then return 'F' end
    r.expires, r.dirty = now + read('<d', op, 2), true
    open_lease(id, r.expires)
    for i = 1, #r.charges do
      local c = r.charges[i]
      local b, o = bucket_of(c)
      o.held_until, o.dirty = math.max(o.held_until, r.expires), true
      if c[KIND] >= IN_FLIGHT and c[CHARGED] > 0 then
        local drained, at = advance(c, b)
        put(c, b, o, drained, math.max(at, r.expires))
      end
    end
    return 'T'
  end

  the_settling = { recharge = recharge, zeros = zeros, close = close, settle = settle,
    release = release, renew = renew }
  return the_settling
end

-- End the leases that are due, by the rule of each limit (KEEP of its charge). At most a thousand at
-- a time, so that nobody waits long because many died together; the next batch takes the rest.
local function expire()
  local due = call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.17g', now), 'LIMIT', 0, 1000)
  some_are_due = #due == 1000
  for i = 1, #due do
    local id = due[i]
    local r = record_of(id)
    if r and r.status == 'o' then
      local kept = {}
      for j = 1, #r.charges do kept[j] = math.min(r.charges[j][CHARGED], r.charges[j][KEEP]) end
      settling().recharge(r, kept)
      settling().close(id, r, 'e')
    else
      close_lease(id)
    end
  end
end
