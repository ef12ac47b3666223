#!lua flags=no-writes
-- Reads the journal.
--
-- ARGV  after (a position, '0-0' for the beginning, '$' to learn only the newest), most records
-- Returns 1 when records right after the position are gone, else 0; the newest position; a list of { position, record }.
local after, most = ARGV[1], tonumber(ARGV[2])
if call('EXISTS', JOURNAL) == 0 then
  return { (after == '0-0' or after == '$') and 0 or 1, '0-0', {} }
end
local info = call('XINFO', 'STREAM', JOURNAL)
local stream = {}
for i = 1, #info, 2 do stream[info[i]] = info[i + 1] end
local newest = stream['last-generated-id']
if after == '$' then return { 0, newest, {} } end

local gap
if after == '0-0' then
  gap = stream['entries-added'] > stream['length']
else
  -- Every position that was handed out belongs to a record: when it is gone, some after it may be gone as well.
  gap = #call('XRANGE', JOURNAL, after, after) == 0
  if gap and #call('XREVRANGE', JOURNAL, '+', after, 'COUNT', 1) == 0 then
    -- A position of a journal that was lost: this one begins anew.
    after = '0-0'
  end
end
local records = call('XRANGE', JOURNAL, after == '0-0' and '-' or '(' .. after, '+', 'COUNT', most)
for i, record in ipairs(records) do records[i] = { record[1], record[2][2] } end
return { gap and 1 or 0, newest, records }
