#!lua flags=no-writes
-- Says where entries are.
--
-- ARGV  per item: member
-- Returns per item: nil when it is not there; else the place (1 ready, 2 delayed, 3 leased, 4 in quarantine), band
-- and fairness key (5 bytes), run and deliveries (5 bytes), entries ahead, ms that remain (-1: none).
local found = {}
for i, member in ipairs(ARGV) do
  local task = task_of(member)
  local held = call('HGET', HELD, task)
  if held then
    found[i] = { 3, sub(held, 1, 5), sub(held, 6, 10), 0, remaining(call('ZSCORE', LEASES, task)) }
  else
    local place = waits_in(member)
    local extra = place and call('HGET', EXTRA, task) or DEFAULT_EXTRA
    local key = sub(member, 17, 21)
    if place == READY then found[i] = { 1, key, extra, call('ZRANK', READY, member), '-1' }
    elseif place == DELAYED then found[i] = { 2, key, extra, 0, remaining(call('ZSCORE', DELAYED, member)) }
    elseif place == QUARANTINE then found[i] = { 4, key, extra, 0, '-1' }
    else found[i] = false end
  end
end
return found
