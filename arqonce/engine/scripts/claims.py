"""The scripts that claim, renew and give up jobs in Redis: each does atomically what arq does in several round trips.

A claimed job has an owner, whose token is the value of arq's in-progress key; arq itself only asks whether that key
exists, so its workers may share the queue. While a job runs, its score is the end of its lease: it is out of the range
that workers read, so running jobs hide no waiting ones (arq reads the first 100 ids, running or not, and so runs at
most 100 jobs of a queue). When a lease ends without its owner, the job is in that range again by itself.

An attempt is counted when it ends without ending the job, or when its lease does: so the first attempt of a job, nearly
always the only one, writes no count. (arq counts when it starts one. Its workers take an orphan of ours for one attempt
younger than it is, which only shifts the limit of attempts by one.)

``<queue>:leases`` holds our running jobs by the end of their leases. From it a worker learns which jobs a killed one
has left, and starts those first, however many are waiting. Were it lost, they would only lose that rank.

The score lies 2 ms behind the end of the lock: who finds it due finds no lock of the same owner, which would look like
that of another one.

Times are the server's: the clocks of the workers do not matter. For Redis 6.2 and later, and Valkey.
"""

from arqonce.engine.scripts.limits import LIMITS
from arqonce.engine.scripts.pauses import PAUSES
from arqonce.engine.scripts.suspects import SUSPECTS
from arqonce.engine.scripts.watcher import ELECT, NOW

_IN_CHUNKS = """
local function in_chunks(command, key, items)  -- Lua's stack holds some thousand values
    for at = 1, #items, 1000 do redis.call(command, key, unpack(items, at, math.min(at + 999, #items))) end
end
"""

CLAIM = (
    "local watcher, baton = KEYS[1], KEYS[2]"
    + NOW
    + _IN_CHUNKS
    + ELECT
    + """
local owner, lease_ms, room, retry_ms, looks = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local bytes, me, watch_ms, is_idle = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), ARGV[9] == '1'
local must_know_pauses = ARGV[10] == '1'
local queues = #KEYS / 2 - 1
local number, queue, leases  -- of the queue that is looked at
local skipped, places = {}, {}  -- by number, as below
local claimed, soonest = {}, 86400000  -- ms
local is_alone, has_passed_over = false, {}
"""
    + SUSPECTS
    + LIMITS
    + """
soonest = math.min(soonest, look_after_permits() or soonest)

local function look_at(which)
    number, queue, leases = which, KEYS[1 + 2 * which], KEYS[2 + 2 * which]
    suspect_in(queue)
end

local function is_error(reply) return type(reply) == 'table' and reply.err end

local function take(id)
    local key = 'arq:in-progress:' .. id
    if redis.call('SET', key, owner, 'NX', 'PX', lease_ms) then return true end
    if is_error(redis.pcall('GET', key)) then  -- no lock of anybody's
        redis.call('DEL', key)
        return redis.call('SET', key, owner, 'NX', 'PX', lease_ms)
    end
    local left = redis.call('PTTL', key)
    if left < 0 then redis.call('PEXPIRE', key, lease_ms) end  -- or it would stay for ever
    soonest = math.min(soonest, 1 + (left < 0 and lease_ms or left))  -- nothing announces the expiry of a lock
    return false
end

local function count(id, is_orphan)
    local key = 'arq:retry:' .. id
    local ended = redis.pcall('GETEX', key)  -- not GET: tracking would remember the key and announce its expiry
    if ended and not tonumber(ended) then  -- no number, or an error: no count at all
        redis.call('DEL', key)
        ended = false
    end
    local before = (tonumber(ended or 0) or 0) + (is_orphan and 1 or 0)
    if is_orphan then redis.call('SET', key, before, 'PX', retry_ms) end
    return before + 1
end

local has_aborts
local function is_aborted(id)
    if has_aborts == nil then
        local aborts = redis.pcall('ZCARD', 'arq:abort')
        has_aborts = not is_error(aborts) and aborts > 0  -- an error: no list of requests at all
    end
    return has_aborts and redis.call('ZREM', 'arq:abort', id) or 0
end

local function may_run(id)  -- a suspect only alone: in a worker that is idle, and takes nothing else
    if not is_suspect(id) then return true end
    is_alone = is_idle and #claimed == 0
    has_passed_over[number] = has_passed_over[number] or not is_alone
    return is_alone
end

local function claim(id, score, is_orphan)
    if not is_orphan and not may_run(id) then return false end
    if not take(id) then
        is_alone = false
        return false
    end
    if is_orphan then
        note_crash(id)
        if not may_run(id) then  -- it waits in the queue, and its death is counted
            count(id, true)
            redis.call('DEL', 'arq:in-progress:' .. id)
            return false
        end
    end
    if is_alone then set_crash_score(id, 2 * excused(id) + 1) end
    local message = redis.pcall('GETEX', 'arq:job:' .. id)  -- not GET, as above
    local unreadable = is_error(message) or false
    message = not unreadable and message
    bytes = bytes - (message and #message or 0)
    local attempt, was_left = count(id, is_orphan), (is_orphan or crash_score(id) > 0) and 1 or 0
    claimed[#claimed + 1] = {id, attempt, message, score, is_aborted(id), unreadable, excused(id), was_left, number}
    return true
end

local function lease(from)
    local moved = {}
    for at = from, #claimed do
        moved[#moved + 1] = now + lease_ms + 2
        moved[#moved + 1] = claimed[at][1]
    end
    in_chunks('ZADD', queue, moved)
    in_chunks('ZADD', leases, moved)
end

"""
    + PAUSES
    + """
local function claim_orphans()  -- jobs whose owner has let the lease end
    local first = #claimed + 1
    local orphans = redis.pcall('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, room - #claimed)
    if is_error(orphans) then  -- ours: it is made anew
        redis.call('DEL', leases)
        orphans = {}
    end
    for _, id in ipairs(orphans) do
        if bytes <= 0 or is_alone then break end
        local score = redis.call('ZSCORE', queue, id)
        if not score or (is_put_aside and is_put_aside(id, score, true)) or not claim(id, score, true) then
            redis.call('ZREM', leases, id)
        end
    end
    lease(first)
end

local held, is_drained = {}, {}  -- by number
local function claim_due(most, reserve)  -- up to so many, and as long as so many bytes would be left
    most = math.min(room, #claimed + most)
    local last = skipped[number] + looks
    while #claimed < most and held[number] < last and bytes > reserve and put_aside < looks
        and not (is_alone or is_drained[number]) do
        local found =
            redis.call('ZRANGEBYSCORE', queue, '-inf', now, 'WITHSCORES', 'LIMIT', held[number], most - #claimed)
        is_drained[number] = #found == 0
        local first = #claimed + 1
        for at = 1, #found, 2 do
            if bytes <= reserve or is_alone then break end
            local id, score = found[at], found[at + 1]
            if score == '1' and not redis.pcall('ZSCORE', 'arq:abort', id) then
                -- arq's abort() pulls a job forward to this score and only then asks for its end: wait for that
                redis.call('ZADD', queue, now + 50, id)
            elseif not (is_put_aside and is_put_aside(id, score)) and not claim(id, score) then
                held[number] = held[number] + 1  -- an arq worker runs it, or it is a suspect
            end
        end
        lease(first)
    end
end

for which = 1, queues do  -- first, whatever is waiting
    skipped[which], places[which] = tonumber(ARGV[9 + 2 * which]), tonumber(ARGV[10 + 2 * which])
    held[which] = skipped[which]
    look_at(which)
    look_for_pauses()
    is_drained[which] = is_paused[which]
    if #claimed < room and not is_paused[which] then claim_orphans() end
end
local part = bytes / queues  -- so that large messages of one do not use up what is another's
for which = 1, queues do
    if places[which] > 0 then
        look_at(which)
        claim_due(places[which], bytes - part)
    end
end
for which = 1, queues do
    look_at(which)
    claim_due(room, 0)
end
local is_cut_off, must_get_idle, skip = false, is_alone, {}
for which = 1, queues do
    local is_cut = not is_drained[which] and held[which] >= skipped[which] + looks
    is_cut_off, skip[which] = is_cut_off or is_cut, is_cut and held[which] or 0
    look_at(which)
    if has_passed_over[which] then
        soonest = math.min(soonest, 1000)
        must_get_idle = redis.call('SET', apart, me, 'NX', 'PX', 60000) or redis.call('GETEX', apart) == me
            or must_get_idle
    elseif is_alone and redis.call('GETEX', apart) == me then redis.call('DEL', apart) end
end
local watches = -1
local is_cut_short = bytes <= 0 or put_aside >= looks
if #claimed >= room or is_cut_short or must_get_idle or is_cut_off then  -- another may take what else is due
    resign(me)
    pass()
elseif watch_ms > 0 then watches = elect(me, watch_ms)
end
-- The last command that touches a queue is a read: client-side tracking begins with it.
for which = 1, queues do
    local later = redis.call('ZRANGEBYSCORE', KEYS[1 + 2 * which], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if later[2] then soonest = math.min(soonest, tonumber(later[2]) - now) end
end
return {claimed, math.ceil(soonest), is_cut_short and 1 or 0, watches, must_get_idle and 1 or 0, skip}
"""
)
"""Claim up to ``room`` jobs that are due, and stop when their messages have more than so many bytes. If that leaves
room, watch the queues for ``watch_ms`` unless another does; else let another one claim.

Keys are those of the election, and for each queue itself and its leases. Arguments end with a pair for each queue: how
many jobs to skip, and how many places of the room are its own. Orphans come first; then each queue fills its places;
then all together, in order, fill what is left.

Paused queues are passed over, and jobs of paused kinds put aside (``pauses``): up to ``looks`` of them in one call.

Returns the jobs, in how many ms the next one may be due (somebody's lease may end then; at most a day), whether it
stopped for the bytes or for jobs that it has put aside, whether we watch (0) or in how many ms another worker's watch
expires, whether nothing must be claimed until all jobs of ours have ended (``suspects``), and of each queue how many
jobs that are locked the next call is to skip: it looks at ``looks`` of them in one call.
Of each job: id, attempt, message (false: gone), score, whether it is to be aborted, why its message cannot be read (or
false), how many deaths are excused, whether a worker has left it, and the number of its queue. The attempt is one more
than have counted, and one more still if a worker has left the job: that attempt never ended, and is counted now. Keys
that lock or count and are no such keys are mended."""

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

FINISH = (
    NOW
    + _IN_CHUNKS
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
    local keep_ms = retry_ms
    if outcome ~= 'back' then keep_ms = keep_ms + number end
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
            if groups_end < #ARGV then recorded[#answers] = written(queue, id) end
            if is_end then done(id, value, keep_ms, held_ms)
            else again(id, outcome, outcome ~= 'back' and tonumber(value) or value, attempts, held_ms) end
        elseif is_end and not current and is_gone(id) then
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
        give_back(permit, job)
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
whether it was the owner's, and then how many parked jobs are due again.
"""

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
