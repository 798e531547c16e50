"""The scripts that claim, renew and give up jobs in Redis: each does atomically what arq does in several round trips.

A claimed job has an owner, whose token is the value of arq's in-progress key; arq itself only asks whether that key
exists, so its workers may share the queue. While a job runs, its score is the end of its lease: it is out of the range
that workers read, so running jobs hide no waiting ones (arq reads the first 100 ids, running or not, and so runs at
most 100 jobs of a queue). When a lease ends without its owner, the job is in that range again by itself.

``<queue>:leases`` holds our running jobs by the end of their leases. From it a worker learns which jobs a killed one
has left, and starts those first, however many are waiting. Were it lost, they would only lose that rank.

Times are the server's: the clocks of the workers do not matter. For Redis 6.2 and later, and Valkey.
"""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

CLAIM = (
    _NOW
    + """
local queue, leases = KEYS[1], KEYS[2]
local owner, lease_ms, room, retry_ms, looks = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local claimed = {}

local function is_error(reply) return type(reply) == 'table' and reply.err end

local function take(id)
    local key = 'arq:in-progress:' .. id
    if redis.call('SET', key, owner, 'NX', 'PX', lease_ms) then return true end
    if is_error(redis.pcall('GET', key)) then  -- no lock of anybody's
        redis.call('DEL', key)
        return redis.call('SET', key, owner, 'NX', 'PX', lease_ms)
    end
    if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, lease_ms) end  -- or it would stay for ever
    return false
end

local function claim(id, score)
    if not take(id) then return false end
    redis.call('ZADD', queue, now + lease_ms, id)
    redis.call('ZADD', leases, now + lease_ms, id)
    local message = redis.pcall('GET', 'arq:job:' .. id)
    local attempt = redis.pcall('INCR', 'arq:retry:' .. id)
    if is_error(attempt) then
        redis.call('DEL', 'arq:retry:' .. id)
        attempt = redis.call('INCR', 'arq:retry:' .. id)
    end
    redis.call('PEXPIRE', 'arq:retry:' .. id, retry_ms)
    local aborted = redis.pcall('ZREM', 'arq:abort', id)
    if is_error(aborted) then aborted = 0 end  -- no list of requests at all
    local unreadable = is_error(message) or false
    claimed[#claimed + 1] = {id, attempt, not unreadable and message, score, aborted, unreadable}
    return true
end

if is_error(redis.pcall('ZCARD', leases)) then redis.call('DEL', leases) end  -- ours: it is made anew
-- Jobs whose owner has let the lease end: first, whatever is waiting.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, room)) do
    local score = redis.call('ZSCORE', queue, id)
    if not score or not claim(id, score) then redis.call('ZREM', leases, id) end
end

local held = 0
while #claimed < room and held < looks do
    local found = redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', held, room - #claimed)
    if #found == 0 then break end
    for at = 1, #found, 2 do
        if not claim(found[at], found[at + 1]) then held = held + 1 end  -- a worker of arq's own class runs it
    end
end
return claimed
"""
)
"""Claim up to ``room`` jobs that are due. Answers for each: id, attempt, message (false: gone), score, whether it is to
be aborted, and why its message cannot be read (or false). Keys that lock or count and are no such keys are mended."""

RENEW = (
    _NOW
    + """
local queue, leases, lease_ms = KEYS[1], KEYS[2], ARGV[1]
local lost = {}
for at = 2, #ARGV, 2 do
    local id, owner = ARGV[at], ARGV[at + 1]
    local key = 'arq:in-progress:' .. id
    local current = redis.pcall('GET', key)
    if current == owner or (not current and redis.call('ZSCORE', leases, id)) then
        redis.call('SET', key, owner, 'PX', lease_ms)
        redis.call('ZADD', queue, 'XX', now + lease_ms, id)
        redis.call('ZADD', leases, now + lease_ms, id)
    else
        lost[#lost + 1] = id
    end
end
return lost
"""
)
"""Renew leases, given as pairs of id and owner, also those that have ended without a new owner since. Answers the ids
that are no longer theirs: another has or had them, or Redis has lost them."""

FINISH = (
    _NOW
    + """
local queue, leases = KEYS[1], KEYS[2]
local id, owner, outcome, number, counts, result, keep_ms, held_ms, expiry_ms = unpack(ARGV)
local lease, job, retry = 'arq:in-progress:' .. id, 'arq:job:' .. id, 'arq:retry:' .. id
local current = redis.pcall('GET', lease)

local function answer(...)
    if result == '' then return end
    if keep_ms == '0' then redis.call('SET', 'arq:result:' .. id, result, ...)
    else redis.call('SET', 'arq:result:' .. id, result, 'PX', keep_ms, ...) end
end

if current ~= owner and (current or not redis.call('ZSCORE', leases, id)) then
    local gone = not current and redis.call('EXISTS', job) == 0 and not redis.call('ZSCORE', queue, id)
    if gone and outcome == 'done' then answer('NX') end  -- Redis has lost the job: its answer is in nobody's way
    return 0
end
redis.call('ZREM', leases, id)
if held_ms == '0' then redis.call('DEL', lease) else redis.call('PEXPIRE', lease, held_ms) end
if outcome == 'done' then
    answer()
    redis.call('DEL', job, retry)
    redis.call('ZREM', queue, id)
    redis.pcall('ZREM', 'arq:abort', id)
    return 1
end
if counts == '0' and redis.call('DECR', retry) < 1 then redis.call('DEL', retry) end
if outcome == 'later' then
    local ttl = redis.call('PTTL', job)
    if ttl > 0 and ttl < number + expiry_ms then redis.call('PEXPIRE', job, number + expiry_ms) end
    number = now + number
end
redis.call('ZADD', queue, 'XX', number, id)
return 1
"""
)
"""End an attempt if the job is still its owner's, or its lease has ended and nobody has taken it since: ``done`` with a
result (empty: none; kept ``keep_ms``, 0 for ever), ``later`` by ``number`` ms, or given ``back`` with its old score as
``number``; an attempt that does not count is taken back. The in-progress key stays for ``held_ms``: arq holds a cron
job's so that it is not enqueued twice. A job that is to run again lives as long as a fresh one; arq lets it expire."""

RELEASE = """
local queue, leases, released = KEYS[1], KEYS[2], 0
local owners = {}
for _, owner in ipairs(ARGV) do owners[owner] = true end
for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    local current = redis.pcall('GET', 'arq:in-progress:' .. id)
    if type(current) == 'string' and owners[current] then
        redis.call('DEL', 'arq:in-progress:' .. id)
        if redis.call('DECR', 'arq:retry:' .. id) < 1 then redis.call('DEL', 'arq:retry:' .. id) end
        redis.call('ZADD', leases, 0, id)  -- the next claim takes it first
        released = released + 1
    end
end
return released
"""
"""Give back what was claimed by calls whose answer was lost: nobody has started it, and it counts as no attempt."""

ABORTS = (
    _NOW
    + """
if type(redis.pcall('ZCARD', KEYS[1])) == 'table' then return {} end  -- an error: it is of another type
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1], 'LIMIT', 0, 100)) do
    if redis.call('EXISTS', 'arq:job:' .. id) == 0 then redis.call('ZREM', KEYS[1], id) end
end
return redis.call('ZRANGE', KEYS[1], 0, 999)
"""
)
"""Answer which jobs are to be aborted, and forget requests older than this many ms for jobs that do not exist. (arq
keeps them for ever, and aborts whatever job has such an id later.)"""
