#!lua flags=no-writes
-- Says which entries are there.
--
-- ARGV  per item: member, run (4 bytes)
-- Returns a byte per item: 1 present, 0 missing, 2 in quarantine.
local PRESENT, MISSING, IN_QUARANTINE = '\1', '\0', '\2'
local members, tasks = {}, {}
for i = 1, #ARGV, 2 do
  members[#members + 1] = ARGV[i]
  tasks[#tasks + 1] = task_of(ARGV[i])
end
local helds, extras = call('HMGET', HELD, unpack(tasks)), call('HMGET', EXTRA, unpack(tasks))
local in_ready, in_delayed = call('ZMSCORE', READY, unpack(members)), call('ZMSCORE', DELAYED, unpack(members))
local in_quarantine = call('ZMSCORE', QUARANTINE, unpack(members))
local found = {}
for i = 1, #members do
  local run
  if helds[i] then run = sub(helds[i], 6, 9)
  elseif in_ready[i] or in_delayed[i] or in_quarantine[i] then run = sub(extras[i] or DEFAULT_EXTRA, 1, 4) end
  if not run or run < ARGV[2 * i] then found[i] = MISSING
  elseif not helds[i] and in_quarantine[i] then found[i] = IN_QUARANTINE
  else found[i] = PRESENT end
end
return concat(found)
