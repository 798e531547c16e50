"""The script that ends attempts in Redis: it records results, and puts back what is to run again."""

from arqonce.engine.scripts.claims import IN_CHUNKS
from arqonce.engine.scripts.limits import LIMITS
from arqonce.engine.scripts.suspects import SUSPECTS
from arqonce.engine.scripts.watcher import NOW

FINISH = (
    NOW
    + IN_CHUNKS
    + """
local expiry_ms, retry_ms, groups_end = tonumber(ARGV[1]), tonumber(ARGV[2]), #ARGV - 2 * ARGV[3]
local queue, leases, unleased, ended  -- of the queue that a group belongs to
local answers, queues, recorded = {}, {}, {}
"""
    + SUSPECTS
    + LIMITS
    + """

local function keep(id, result, keep_ms, ...)
    if result == '' then return end
    if keep_ms == '0' then redis.call('SET', 'arq:result:' .. id, result, ...)
    else redis.call('SET', 'arq:result:' .. id, result, 'PX', keep_ms, ...) end
end

local function done(id, result, keep_ms, held_ms)
    keep(id, result, keep_ms)
    ended[#ended + 1] = id
    if crash_score(id) > 0 then redis.call('ZREM', crashes, id) end
    local lease = 'arq:in-progress:' .. id
    if held_ms == '0' then redis.call('DEL', lease, 'arq:job:' .. id, 'arq:retry:' .. id)
    else
        redis.call('PEXPIRE', lease, held_ms)
        redis.call('DEL', 'arq:job:' .. id, 'arq:retry:' .. id)
    end
end

local function again(id, outcome, number, attempts, held_ms)
    local lease, job, retry = 'arq:in-progress:' .. id, 'arq:job:' .. id, 'arq:retry:' .. id
    if held_ms == '0' then redis.call('DEL', lease) else redis.call('PEXPIRE', lease, held_ms) end
    local keep_ms = outcome == 'back' and retry_ms or retry_ms + number
    if attempts == '0' then redis.call('DEL', retry) else redis.call('SET', retry, attempts, 'PX', keep_ms) end
    local score = crash_score(id)
    if score > 0 and outcome ~= 'back' then redis.call('ZREM', crashes, id)
    elseif score % 2 == 1 then set_crash_score(id, score - 1) end
    if outcome == 'later' then
        local ttl = redis.call('PTTL', job)
        if ttl > 0 and ttl < number + expiry_ms then redis.call('PEXPIRE', job, number + expiry_ms) end
    end
    if outcome ~= 'back' then number = now + number end
    redis.call('ZADD', queue, 'XX', number, id)
end

local function is_gone(id)
    return redis.call('EXISTS', 'arq:job:' .. id) == 0 and not redis.call('ZSCORE', queue, id)
end

local function is_same(id, digest)
    local message = redis.pcall('GET', 'arq:job:' .. id)
    return type(message) == 'string' and redis.sha1hex(message) == digest
end

local function look_at(number)
    queue, leases = KEYS[2 * number - 1], KEYS[2 * number]
    suspect_in(queue)
    queues[number] = queues[number] or {unleased = {}, ended = {}}
    unleased, ended = queues[number].unleased, queues[number].ended
end

local at = 4
while at < groups_end do
    local number, outcome, owner, attempts, keep_ms, held_ms, jobs = unpack(ARGV, at, at + 6)
    local locks = {}
    look_at(number)
    for job = 1, jobs do locks[job] = 'arq:in-progress:' .. ARGV[at + 5 + 2 * job] end
    local owners = redis.call('MGET', unpack(locks))
    for job = 1, jobs do
        local id, value, current = ARGV[at + 5 + 2 * job], ARGV[at + 6 + 2 * job], owners[job]
        local is_ours = current == owner or (not current and redis.call('ZSCORE', leases, id))
        local is_end = outcome == 'done'
        if outcome == 'first' then
            is_end, is_ours = true, is_ours or is_same(id, string.sub(value, 1, 40))
            value = string.sub(value, 41)
        end
        answers[#answers + 1] = is_ours and 1 or 0
        if is_ours then
            unleased[#unleased + 1] = id
            if groups_end < #ARGV then recorded[#answers] = {written(queue, id), outcome == 'back' and owner} end
            if is_end then done(id, value, keep_ms, held_ms)
            else again(id, outcome, outcome ~= 'back' and tonumber(value) or value, attempts, held_ms) end
        elseif is_end and not current and is_gone(id) then
            if value ~= '' and redis.pcall('GET', 'arq:result:' .. id) == value then answers[#answers] = 1 end
            keep(id, value, keep_ms, 'NX')  -- Redis has lost the job: its answer is in nobody's way
        end
    end
    at = at + 7 + 2 * jobs
end
local aborts = redis.pcall('ZCARD', 'arq:abort')
for number in pairs(queues) do
    look_at(number)
    in_chunks('ZREM', leases, unleased)
    in_chunks('ZREM', queue, ended)
    if type(aborts) == 'number' and aborts > 0 then in_chunks('ZREM', 'arq:abort', ended) end
    redis.call('ZCARD', queue)  -- our own change has ended the tracking of the queue: begin it again
end
local given_back = {}
for at = groups_end + 1, #ARGV, 2 do
    local job, permit = recorded[tonumber(ARGV[at])], ARGV[at + 1]
    if job then
        give_back(permit, unpack(job))
        given_back[permit] = true
    end
end
for permit in pairs(given_back) do release_if_awaited(permit) end
answers[#answers + 1] = released
return answers
"""
)
"""End attempts of many jobs, each if it is still its owner's, or its lease has ended and nobody has taken it since.

Jobs come in groups: the number of their queue, what becomes of them, their owner, how many attempts have counted so
far, how long the result is kept and the lease held, their number (at most 1,000), and for each the id and a value. Keys
are each queue and its leases, in the order of these numbers. Jobs are ``done`` with the value
as their result (empty: none; kept ``keep_ms``, 0 for ever), due ``later`` by that many ms, or given ``back`` with it as
their score. ``first`` is ``done`` whoever has the job by now, if its message has the SHA-1 with which the value begins.
The in-progress key stays for ``held_ms``: arq holds a cron job's so that it is not enqueued twice. A job that is to run
again lives as long as a fresh one; arq lets it expire.

At the end there are pairs of the number of a job in this call and a permit that it gives back. Answers for each job
whether it was the owner's, or has this result by an earlier call, and then how many parked jobs are due again.
"""
