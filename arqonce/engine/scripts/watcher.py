"""The scripts by which the idle workers of a queue agree on the one that watches it.

``<queue>:watcher`` holds that worker's token until its watch expires; ``GETEX`` or a claim renews it.
``<queue>:baton`` is a list on which the other idle ones wait, in the order in which they came: an element wakes one of
them, never all. There is at most one element, and it does not last. ``<queue>:deputy`` holds the token of the one that
looks after the watch, until it has not looked for some time. All may be lost at any time.

Times are the server's.
"""

NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""
"""For a script that knows the time."""

ELECT = """
local function pass()  -- wakes one of those who wait; if none does, the next one to come
    redis.call('DEL', baton)
    redis.call('RPUSH', baton, 1)
    redis.call('PEXPIRE', baton, 1000)
end

local function holder()
    local name = redis.pcall('GETEX', watcher)  -- not GET: tracking would announce each renewal
    if type(name) ~= 'table' then return name end
    redis.call('DEL', watcher)  -- it is of another type
    return false
end

local function elect(me, watch_ms)  -- 0: this worker watches; else in how many ms the other's watch expires
    local name = holder()
    if name and name ~= me then
        local left = redis.call('PTTL', watcher)
        if left > 0 and left <= 60000 then return left end  -- else it is no watch of ours
    end
    redis.call('SET', watcher, me, 'PX', watch_ms)
    return 0
end

local function resign(me)
    if holder() == me then redis.call('DEL', watcher) end
end
"""
"""For a script that knows ``watcher``, ``baton`` and ``now``."""

_BEGIN = "local watcher, baton = KEYS[1], KEYS[2]" + NOW + ELECT

STAND_BY = (
    _BEGIN
    + """
if type(redis.pcall('LLEN', baton)) == 'table' then redis.call('DEL', baton) end  -- an error: it is no list
return elect(ARGV[1], tonumber(ARGV[2]))
"""
)
"""Returns 0 if the worker watches from now on, else in how many ms another's watch expires unless renewed."""

RESIGN = (
    _BEGIN
    + """
resign(ARGV[1])
if not holder() then pass() end
"""
)
"""Watch no more, and wake one of those who wait if nobody watches."""
