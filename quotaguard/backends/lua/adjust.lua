-- Give to buckets, or take from them, by hand: rule for rule as in quotaguard/core/ledger.py.

local function adjust(id, op)
  local known = record_of(id)
  if known then return known.answer end
  local changes = read_charges(op, 4, (read('<I2', op, 2)))
  if not in_reach(changes) then return 'W' end
  local given, left = {}, {}
  for i = 1, #changes do
    local c = changes[i]
    local b, o = bucket_of(c)
    local drained, at = advance(c, b)
    local gift = c[KIND] >= IN_FLIGHT and 0 or math.min(c[AMOUNT], drained)
    if gift ~= 0 then put(c, b, o, drained - gift, at) end
    if o.waited > now then free(c) end
    given[i], left[i] = gift, c[CEILING] - drained + gift
  end
  local answer = 'J' .. pack_all(given) .. pack_all(left)
  records[id] = { status = 's', expires = 0, answer = answer, charges = {}, dirty = true }
  return answer
end
