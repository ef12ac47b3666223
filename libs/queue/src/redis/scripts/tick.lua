#!lua flags=allow-oom
-- Takes ended leases back and makes due entries ready.
--
-- ARGV  promote, reap, max_deliveries
-- Returns promoted, reaped, quarantined, ready, ms until the next delayed entry is due (-1: none), ms until the next lease
-- ends (-1: none).
local refused = begin()
if refused then return refused end

local reaped, quarantined = reap(tonumber(ARGV[args + 1]), tonumber(ARGV[args + 2]))
local promoted = promote(tonumber(ARGV[args]))
local ready = call('ZCARD', READY)
if ready == 0 then
  -- Nobody is owed a turn.
  call('DEL', FAIRNESS)
  passes, virtual_times = {}, {}
end
return finish({ promoted, reaped, quarantined, ready, first_of(DELAYED), first_of(LEASES) })
