#!lua flags=allow-oom
-- Applies settings, unless newer ones are in force.
--
-- ARGV  revision, paused (1 or 0)
-- Returns the settings in force: revision, paused.
local refused = begin()
if refused then return refused end
configure(tonumber(ARGV[args]), ARGV[args + 1])
return finish({ text(revision), paused })
