#!lua flags=no-writes
-- Pages over one key and names what does not fit together: leases and records are the same tasks, and an entry is in one place.
-- The script sees all places of an entry at one moment.
--
-- ARGV  key (1 ready, 2 delayed, 3 leases, 4 quarantine, 5 records), cursor of SCAN ('0' to begin), about how many
-- Returns the next cursor ('0': the end), and per damaged entry: damage (1 a lease without its record, 2 a record without its
-- lease, 3 two places), task, member (empty: not known), run (4 bytes, or empty).
local LEASE_ALONE, RECORD_ALONE, TWO_PLACES = 1, 2, 3
local key, cursor, count = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local found = {}
local function name(damage, task, member, run) found[#found + 1] = { damage, task, member or '', run or '' } end

if key == 5 then
  local page = call('HSCAN', HELD, cursor, 'COUNT', count)
  local fields = page[2]
  for i = 1, #fields, 2 do
    local task, held = fields[i], fields[i + 1]
    local member = task .. sub(held, 1, 5)
    if not call('ZSCORE', LEASES, task) then name(RECORD_ALONE, task, member, sub(held, 6, 9))
    elseif waits_in(member) then name(TWO_PLACES, task, member, sub(held, 6, 9)) end
  end
  return { page[1], found }
end
if key == 3 then
  local page = call('ZSCAN', LEASES, cursor, 'COUNT', count)
  for i = 1, #page[2], 2 do
    local task = page[2][i]
    if call('HEXISTS', HELD, task) == 0 then name(LEASE_ALONE, task) end
  end
  return { page[1], found }
end
local page = call('ZSCAN', ({ READY, DELAYED, nil, QUARANTINE })[key], cursor, 'COUNT', count)
for i = 1, #page[2], 2 do
  local member = page[2][i]
  local places = 0
  for _, place in ipairs({ READY, DELAYED, QUARANTINE }) do
    if call('ZSCORE', place, member) then places = places + 1 end
  end
  if places > 1 then
    name(TWO_PLACES, task_of(member), member, sub(call('HGET', EXTRA, task_of(member)) or DEFAULT_EXTRA, 1, 4))
  end
end
return { page[1], found }
