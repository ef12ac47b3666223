#!lua
-- Puts entries in, ready or delayed.
--
-- ARGV  window, then per item: member, spec
--       spec = run (4 bytes) delay_ms (8) transition (1) note (the rest)
-- Returns a byte per item: 1 created, 0 exists, 2 older, 3 superseded, 4 window full.
local CREATED, EXISTS, OLDER, SUPERSEDED, FULL = '\1', '\0', '\2', '\3', '\4'
local refused = begin()
if refused then return refused end

local window = tonumber(ARGV[args])
local members, tasks = {}, {}
for i = args + 1, #ARGV, 2 do
  members[#members + 1] = ARGV[i]
  tasks[#tasks + 1] = task_of(ARGV[i])
end

local none = {}
local ready, delayed = call('ZCARD', READY), call('ZCARD', DELAYED)
local leased, quarantined = call('ZCARD', LEASES), call('ZCARD', QUARANTINE)
local size = ready + delayed + leased + quarantined
local helds = leased > 0 and call('HMGET', HELD, unpack(tasks)) or none
local in_ready = ready > 0 and call('ZMSCORE', READY, unpack(members)) or none
local in_delayed = delayed > 0 and call('ZMSCORE', DELAYED, unpack(members)) or none
local in_quarantine = quarantined > 0 and call('ZMSCORE', QUARANTINE, unpack(members)) or none
local old_extras = ready + delayed + quarantined > 0 and call('HMGET', EXTRA, unpack(tasks)) or none

local statuses, lost_leases, new_extras = {}, {}, {}
for i, member in ipairs(members) do
  local spec, task, status = ARGV[args + 2 * i], tasks[i], CREATED
  local run = sub(spec, 1, 4)
  local held, waiting = helds[i], in_ready[i] or in_delayed[i] or in_quarantine[i]
  if held or waiting then
    local old_run = held and sub(held, 6, 9) or old_extras[i] and sub(old_extras[i], 1, 4) or RUN_ONE
    if old_run == run then status = EXISTS
    elseif old_run > run then status = OLDER
    else
      status = SUPERSEDED
      if held then lost_leases[#lost_leases + 1] = task
      elseif in_ready[i] then call('ZREM', READY, member)
      elseif in_delayed[i] then call('ZREM', DELAYED, member)
      else call('ZREM', QUARANTINE, member) end
    end
  elseif run == RUN_ONE and size >= window then status = FULL
  else size = size + 1 end

  if status == CREATED or status == SUPERSEDED then
    if run ~= RUN_ONE then
      new_extras[#new_extras + 1], new_extras[#new_extras + 2] = task, run .. NEVER_GIVEN_OUT
    end
    local delay, transition = parse('>I8B', spec, 5)
    local note = #spec > 13 and sub(spec, 14) or nil
    tell(transition, task, run, NEVER_GIVEN_OUT, wait(member, delay), note)
  end
  statuses[i] = status
end

with('HDEL', HELD, lost_leases)
with('ZREM', LEASES, lost_leases)
with('HSET', EXTRA, new_extras)
save_waiting()
return finish({ concat(statuses) })
