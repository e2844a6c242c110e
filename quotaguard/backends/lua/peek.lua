-- Read buckets without spending: left, held, seconds until full.

local function peek(_, op)
  local said, charges = {}, read_charges(op, 4, (read('<I2', op, 2)))
  if not in_reach(charges) then return 'W' end
  for i = 1, #charges do
    local c = charges[i]
    local b = bucket_of(c)
    local drained, at = advance(c, b)
    local s = #said
    said[s + 1], said[s + 2] = c[CEILING] - drained, math.max(0, b[HOLDS])
    said[s + 3] = drained > 0 and wait(c, drained, at, c[CEILING], 0) or 0
  end
  return 'P' .. pack_all(said)
end
