"""The scripts for claims that nobody ends yet: renewal, requests to abort, and claims whose answer was lost."""

from arqonce.engine.scripts.watcher import NOW

RENEW = (
    NOW
    + """
local lease_ms = ARGV[1]
local lost = {}
for at = 2, #ARGV, 3 do
    local number, id, owner = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local queue, leases = KEYS[2 * number - 1], KEYS[2 * number]
    local key = 'arq:in-progress:' .. id
    local current = redis.pcall('GET', key)
    if current == owner or (not current and redis.call('ZSCORE', leases, id)) then
        redis.call('SET', key, owner, 'PX', lease_ms)
        redis.call('ZADD', queue, 'XX', now + lease_ms + 2, id)
        redis.call('ZADD', leases, now + lease_ms + 2, id)
    else
        lost[#lost + 1] = id
    end
end
return lost
"""
)
"""Renew leases, given as queue's number, id and owner of each, also those that have ended without a new owner since.
Answers the ids that are no longer theirs: another has or had them, or Redis has lost them."""

RELEASE = """
local owners, released = {}, 0
for _, owner in ipairs(ARGV) do owners[owner] = true end
for at = 1, #KEYS, 2 do
    local queue, leases = KEYS[at], KEYS[at + 1]
    for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
        local current = redis.pcall('GET', 'arq:in-progress:' .. id)
        if type(current) == 'string' and owners[current] then
            redis.call('DEL', 'arq:in-progress:' .. id)
            redis.call('ZREM', leases, id)
            redis.call('ZADD', queue, 'XX', 0, id)  -- the next claim takes it first
            released = released + 1
        end
    end
end
return released
"""
"""Give back what was claimed by calls whose answer was lost: nobody has started it, and it counts as no attempt."""

ABORTS = (
    """
local count = redis.pcall('ZCARD', KEYS[1])
if count == 0 or type(count) == 'table' then return {} end  -- an error: it is of another type
"""
    + NOW
    + """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, 100)) do
    if redis.call('EXISTS', 'arq:job:' .. id) == 0 then redis.call('ZREM', KEYS[1], id) end
end
local wanted = {}
for at = 2, #ARGV do
    if redis.call('ZSCORE', KEYS[1], ARGV[at]) then wanted[#wanted + 1] = ARGV[at] end
end
return wanted
"""
)
"""Answer which of these jobs are to be aborted, however many others are, and forget requests older than this many ms
for jobs that do not exist. (arq keeps them for ever, and aborts whatever job has such an id later.)"""

UNCOUNT = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECR', KEYS[1]) end return 1"
"""Take one attempt from a counter that is there. DECR alone would leave a counter of an ended job for ever."""
