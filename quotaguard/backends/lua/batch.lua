-- One call: many operations of one shard, in order, an id and a body each, all in one argument, as
-- each costs. Answers with the time and one answer each; with the time alone if it comes too late.

local answers = { pack('<d', now) }
if now > latest then return answers end
local ids, bodies, known, at = {}, {}, {}, operations
while at <= #batch do
  local id_size, size, body = read('<I4I4', batch, at)
  local id = string.sub(batch, body, body + id_size - 1)
  at = body + id_size + size
  ids[#ids + 1], bodies[#bodies + 1] = id, string.sub(batch, body + id_size, at - 1)
  if id_size > 0 then known[#known + 1] = id end
end
fetch(known)
expire()
if call('EXISTS', base .. ':patience') == 1 then line().leave_overdue() end
for i = 1, #ids do
  local id, op = ids[i], bodies[i]
  local kind = string.sub(op, 1, 1)
  answers[i + 1] = kind == 'R' and reserving()(id, op)
    or kind == 'S' and settling().settle(id, op)
    or kind == 'N' and settling().renew(id, op)
    or kind == 'X' and settling().release(id)
    or kind == 'P' and peek(id, op)
    or kind == 'J' and adjust(id, op)
    or kind == 'M' and merge(id, op)
end
if the_line then the_line.call_up() end
write_books()
if the_line then the_line.write_waiters() end
return answers
