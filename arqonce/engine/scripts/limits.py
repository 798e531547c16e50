"""The scripts that count permits: the rights to run of jobs whose kind is limited (``arqonce.limits``).

A job gets its permits after it was claimed, because only the worker can read whom it is for. If one is missing, the job
is **parked**: it is nobody's, no attempt has counted, and its score in the queue lies beyond the year 8300, where no
worker looks, plain ones included; but it is in the queue, so that nobody enqueues it again, and an abort pulls it
forward as any other job. It waits in a sorted set of what it waits for. So a hundred thousand waiting jobs of a tenant
cost a claim each, once, and hold up nobody.

When a permit becomes free, the first of those that wait is due again, with its old score, and the permit is
**reserved** for it for ten seconds: nobody overtakes. A reservation and a permit of a job that runs are the same entry.

A job that holds a permit has it until a time, and is looked at after that, when permits are short: it keeps its permit
while its lease lasts (``arq:in-progress:<id>``). So a permit ends with the lease of its job, and nothing has to be
renewed. A permit of a job that has vanished is found by a look every 15 s.

Keys, each with a limit's name and, behind a colon, the hash of a value:

- ``arqonce:limits:in-force:<limit>``: ``<number>:<ms>``, for a minute; workers whose code has the limit renew it. What
  waits for a limit that is in nobody's code any more is due again.
- ``arqonce:limits:held:<permit>``: jobs that hold it, scored by when to look whether they still do.
- ``arqonce:limits:starts:<permit>``: starts within the time of a rate, scored by their time.
- ``arqonce:limits:parked:<permit>``: jobs that wait for it, scored by their score in the queue.
- ``arqonce:limits:looks``: all permits for which jobs wait, scored by when to look at them next.

A job is written ``<length of the queue's name>:<queue><id>``. Times are the server's.
"""

from arqonce.engine.scripts.suspects import SUSPECTS
from arqonce.engine.scripts.watcher import NOW
from arqonce.wire.keys import PARKED_MS

LIMITS = (
    f"""
local PARKED, LATEST = {PARKED_MS}, {PARKED_MS // 4}
"""
    """
local look_times = 'arqonce:limits:looks'
local released = 0  -- jobs that are due again

local function size(key)
    local count = redis.pcall('ZCARD', key)
    if type(count) == 'number' then return count end
    redis.call('DEL', key)  -- it is of another type
    return 0
end

local function written(queue, id) return #queue .. ':' .. queue .. id end

local function read(job)
    local length, rest = string.match(job, '^(%d+):(.*)$')
    return string.sub(rest, 1, length), string.sub(rest, length + 1)
end

local function room_of(permit, most, per_ms)  -- for jobs that have no reservation
    local held, starts = 'arqonce:limits:held:' .. permit, 'arqonce:limits:starts:' .. permit
    local started = 0
    if per_ms > 0 and size(starts) > 0 then
        redis.call('ZREMRANGEBYSCORE', starts, '-inf', '(' .. (now - per_ms))
        started = size(starts)
    end
    if started + size(held) >= most then
        for _, job in ipairs(redis.call('ZRANGEBYSCORE', held, '-inf', now)) do
            local _, id = read(job)
            local left = redis.call('PTTL', 'arq:in-progress:' .. id)
            if left == -2 then redis.call('ZREM', held, job)
            else redis.call('ZADD', held, now + math.max(left, 1), job) end
        end
    end
    return most - started - size(held)
end

local function is_unparked(job, score)
    local queue, id = read(job)
    local current = redis.call('ZSCORE', queue, id)
    if not current or tonumber(current) < PARKED then return false end  -- aborted, or queued anew
    redis.call('ZADD', queue, 'XX', score, id)
    redis.call('ZCARD', queue)  -- our own change has ended the tracking of the queue: begin it again
    released = released + 1
    return true
end

local function next_look(permit, per_ms)  -- its time
    local at_last = 1000 * math.ceil((now + 15000) / 1000)  -- for jobs that have vanished, and limits; many together
    if per_ms == 0 then return at_last end
    local first = redis.call('ZRANGE', 'arqonce:limits:starts:' .. permit, 0, 0, 'WITHSCORES')
    local free_at = first[2] and tonumber(first[2]) + per_ms + 1 or now + 1000
    return math.min(at_last, math.max(now + 1, free_at))
end

local function release(permit)  -- let as many of those that wait be due as there is room for
    local waiting = 'arqonce:limits:parked:' .. permit
    if size(waiting) == 0 then
        redis.call('ZREM', look_times, permit)
        return
    end
    local limit = redis.call('GETEX', 'arqonce:limits:in-force:' .. string.match(permit, '^[^:]*'))
    local most, per_ms = string.match(limit or '', '^(%d+):(%d+)$')
    most, per_ms = tonumber(most), tonumber(per_ms)
    local left = most and room_of(permit, most, per_ms) or 1000
    while left > 0 do
        local first = redis.call('ZRANGE', waiting, 0, left - 1, 'WITHSCORES')
        if #first == 0 then break end
        for at = 1, #first, 2 do
            redis.call('ZREM', waiting, first[at])
            if is_unparked(first[at], first[at + 1]) then
                left = left - 1
                if most then redis.call('ZADD', 'arqonce:limits:held:' .. permit, now + 10000, first[at]) end
            end
        end
    end
    if size(waiting) == 0 then redis.call('ZREM', look_times, permit)
    else redis.call('ZADD', look_times, most and next_look(permit, per_ms) or now + 50, permit) end
end

local function give_back(permit, job, owner)  -- with the owner, also its start in a time: it has not begun
    redis.call('ZREM', 'arqonce:limits:held:' .. permit, job)
    if owner then redis.call('ZREM', 'arqonce:limits:starts:' .. permit, owner .. job) end
end

local function release_if_awaited(permit)
    if redis.call('EXISTS', 'arqonce:limits:parked:' .. permit) == 1 then release(permit) end
end

local function look_after_permits()  -- in how many ms the next look is due, if one is
    if size(look_times) == 0 then return nil end
    local due = redis.call('ZRANGEBYSCORE', look_times, '-inf', now, 'LIMIT', 0, 100)
    for _, permit in ipairs(due) do release(permit) end
    local first = redis.call('ZRANGE', look_times, 0, 0, 'WITHSCORES')
    return first[2] and math.max(1, tonumber(first[2]) - now)
end
"""
)
"""For a script that knows ``now``."""

TAKE_PERMITS = (
    NOW
    + """
local lease_ms, expiry_ms, retry_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
"""
    + SUSPECTS
    + LIMITS
    + """
local rooms = {}  -- by permit, as far as it was looked at

local function is_missing(permit, most, per_ms, job)
    if not rooms[permit] then
        release_if_awaited(permit)  -- they come first
        rooms[permit] = room_of(permit, most, per_ms)
    end
    return rooms[permit] <= 0 and not redis.call('ZSCORE', 'arqonce:limits:held:' .. permit, job)
end

local function take(permit, per_ms, job, owner)
    local held = 'arqonce:limits:held:' .. permit
    if per_ms == 0 then
        if redis.call('ZADD', held, now + lease_ms, job) == 1 then rooms[permit] = rooms[permit] - 1 end
    else
        local starts = 'arqonce:limits:starts:' .. permit
        if redis.call('ZREM', held, job) == 0 then rooms[permit] = rooms[permit] - 1 end
        redis.call('ZADD', starts, now, owner .. job)
        redis.call('PEXPIRE', starts, per_ms + 1000)
        if redis.call('EXISTS', 'arqonce:limits:parked:' .. permit) == 1 then
            redis.call('ZADD', look_times, 'LT', next_look(permit, per_ms), permit)
        end
    end
end

local function park(queue, leases, id, score, permit, per_ms, job)
    redis.call('DEL', 'arq:in-progress:' .. id)
    redis.call('ZREM', leases, id)
    redis.call('ZADD', queue, 'XX', PARKED + math.max(0, math.min(tonumber(score) or 0, LATEST)), id)
    redis.call('ZADD', 'arqonce:limits:parked:' .. permit, score, job)
    if not redis.call('ZSCORE', look_times, permit) then
        redis.call('ZADD', look_times, next_look(permit, per_ms), permit)
    end
    local message = 'arq:job:' .. id
    local ttl = redis.call('PTTL', message)
    if ttl > 0 and ttl < expiry_ms then redis.call('PEXPIRE', message, expiry_ms) end
    local crash = crash_score(id)
    if crash % 2 == 1 then set_crash_score(id, crash - 1) end
end

local is_in_force = {}

local function put_in_force(permit, most, per_ms)
    local limit = string.match(permit, '^[^:]*')
    if is_in_force[limit] then return end
    redis.call('SET', 'arqonce:limits:in-force:' .. limit, most .. ':' .. per_ms, 'PX', 60000)
    is_in_force[limit] = true
end

local answers, at = {}, 4
while at < #ARGV do
    local number, id, owner, score, starts, count = unpack(ARGV, at, at + 5)
    local queue, leases = KEYS[2 * number - 1], KEYS[2 * number]
    local job, missing = written(queue, id), nil
    suspect_in(queue)
    for which = 0, count - 1 do
        local permit, most, per_ms = unpack(ARGV, at + 6 + 3 * which, at + 8 + 3 * which)
        put_in_force(permit, most, per_ms)
        if not missing and is_missing(permit, tonumber(most), tonumber(per_ms), job) then missing = which end
    end
    local is_ours = redis.pcall('GETEX', 'arq:in-progress:' .. id) == owner  -- not GET: tracking would remember it
    if not is_ours then answers[#answers + 1] = 2  -- the lease has ended meanwhile: recording its end will show it
    elseif missing then
        for which = 0, count - 1 do
            local permit = ARGV[at + 6 + 3 * which]
            if which ~= missing then
                give_back(permit, job)
                release_if_awaited(permit)
                rooms[permit] = nil
            end
        end
        local permit, _, per_ms = unpack(ARGV, at + 6 + 3 * missing, at + 8 + 3 * missing)
        park(queue, leases, id, score, permit, tonumber(per_ms), job)
        answers[#answers + 1] = 0
    elseif starts == '1' then
        for which = 0, count - 1 do
            local permit, _, per_ms = unpack(ARGV, at + 6 + 3 * which, at + 8 + 3 * which)
            take(permit, tonumber(per_ms), job, owner)
        end
        answers[#answers + 1] = 1
    else answers[#answers + 1] = 2 end
    at = at + 6 + 3 * count
end
for key = 1, #KEYS, 2 do redis.call('ZCARD', KEYS[key]) end  -- as above
return {answers, released}
"""
)
"""Give jobs their permits, or park them. Keys are each queue and its leases.

Of each job: the number of its queue, id, owner, score, whether it is to start, the number of its permits, and of each
the key, the number of the limit and its time in ms. All or none are taken. Answers for each job 1 if it may start, 0 if
it was parked, 2 if it is to be given back: it has no slot, or is no longer its owner's. And how many others are due.
"""

KEEP_IN_FORCE = (
    NOW
    + LIMITS
    + """
for at = 1, #ARGV, 2 do redis.call('SET', 'arqonce:limits:in-force:' .. ARGV[at], ARGV[at + 1], 'PX', 60000) end
if size(look_times) == 0 then
    for _, queue in ipairs(KEYS) do
        for _, id in ipairs(redis.call('ZRANGEBYSCORE', queue, PARKED, 2 * PARKED, 'LIMIT', 0, 1000)) do
            is_unparked(written(queue, id), tonumber(redis.call('ZSCORE', queue, id)) - PARKED)
        end
    end
end
return released
"""
)
"""Say which limits are in force, as pairs of name and number and time. Keys are queues: if Redis has lost what their
jobs wait for, up to a thousand parked ones of each are due again. Answers how many are."""
