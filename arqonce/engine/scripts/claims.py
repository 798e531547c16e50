"""The script that claims jobs in Redis. Those that end and renew claims are in ``finish`` and ``leases``.

Each does atomically what arq does in several round trips.

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
from arqonce.engine.scripts.orphans import ORPHANS
from arqonce.engine.scripts.pauses import PAUSES
from arqonce.engine.scripts.suspects import SUSPECTS
from arqonce.engine.scripts.watcher import ELECT, NOW

IN_CHUNKS = """
local function in_chunks(command, key, items)  -- Lua's stack holds some thousand values
    for at = 1, #items, 1000 do redis.call(command, key, unpack(items, at, math.min(at + 999, #items))) end
end
"""

CLAIM = (
    "local watcher, baton = KEYS[1], KEYS[2]"
    + NOW
    + IN_CHUNKS
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
    local before = tonumber(ended or 0)  -- of an error none
    if not (before and before >= 0 and before <= 2000000000) then  -- no count of attempts at all
        redis.call('DEL', key)
        before = 0
    end
    before = math.floor(before) + (is_orphan and 1 or 0)
    if is_orphan then redis.call('SET', key, before, 'PX', retry_ms) end
    return before + 1
end

local has_aborts
local function is_aborted(id)
    if has_aborts == nil then
        local aborts = redis.pcall('ZCARD', 'arq:abort')
        has_aborts = not is_error(aborts) and aborts > 0  -- an error: no list of requests at all
    end
    -- The request ends with the job: it may be given back, or its worker may die.
    return has_aborts and redis.call('ZSCORE', 'arq:abort', id) and 1 or 0
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
    + ORPHANS
    + """
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
                redis.call('ZADD', queue, now + 250, id)
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
return {claimed, math.ceil(soonest), is_cut_short and 1 or 0, watches, must_get_idle and 1 or 0, skip, now}
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
expires, whether nothing must be claimed until all jobs of ours have ended (``suspects``), of each queue how many
jobs that are locked the next call is to skip: it looks at ``looks`` of them in one call; and the time, in ms.
Of each job: id, attempt, message (false: gone), score, whether it is to be aborted, why its message cannot be read (or
false), how many deaths are excused, whether a worker has left it, and the number of its queue. The attempt is one more
than have counted, and one more still if a worker has left the job: that attempt never ended, and is counted now. Keys
that lock or count and are no such keys are mended."""
