#!lua flags=no-writes
-- Pages over the entries of one place.
--
-- ARGV  place (1 ready, 2 delayed, 3 leased, 4 in quarantine), cursor of SCAN ('0' to begin), about how many
-- Returns the next cursor ('0': the end), and per entry: member, run and deliveries (5 bytes), ms that remain (-1: none).
--
-- What is leased is found by its record. One that has no end is told all the same, without a time that remains.
local place, cursor, count = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local found = {}
if place == 3 then
  local page = call('HSCAN', HELD, cursor, 'COUNT', count)
  local fields = page[2]
  for i = 1, #fields, 2 do
    local task, held = fields[i], fields[i + 1]
    found[#found + 1] = { task .. sub(held, 1, 5), sub(held, 6, 10), remaining(call('ZSCORE', LEASES, task)) }
  end
  return { page[1], found }
end
local key = ({ READY, DELAYED, nil, QUARANTINE })[place]
local page = call('ZSCAN', key, cursor, 'COUNT', count)
local pairs_of = page[2]
for i = 1, #pairs_of, 2 do
  local member = pairs_of[i]
  local extra = call('HGET', EXTRA, task_of(member)) or DEFAULT_EXTRA
  found[#found + 1] = { member, extra, place == 2 and remaining(pairs_of[i + 1]) or '-1' }
end
return { page[1], found }
