"""The part of the claim that obeys pauses.

``arqonce:pauses:<queue>`` says what is paused (``connection.pauses`` writes it): sixteen characters that differ each
time and, if anything is paused, JSON behind them. A healthy queue pays for one GET in each claim, and for no parsing.
Client-side tracking remembers that GET: when the key changes, whoever watches claims again.

If the key is missing, Redis has lost it. Workers that have a ledger then claim nothing of the queue until it is written
again, which takes two seconds: a pause survives a Redis that was emptied.

A **paused queue** is left as it is: also the jobs that a killed worker has left, whose deaths are counted later.

A job of a **paused kind** is put aside when a claim comes to it: its score is moved beyond the year 5138, where no
worker looks, plain ones included, but it stays in the queue, so that nobody enqueues it again. No attempt counts. So a
hundred thousand paused jobs cost a look each, once, and hold up no other kind. ``arqonce:aside:<queue>`` and the kind
name the set of such jobs, from which they return with their old scores when the pause has ended. Were the set lost, a
claim would not find them any more; only Redis itself can lose it, and then with the queue.
"""

from arqonce.wire.keys import EXPIRY, PAUSED_MS, to_ms

PAUSES = (
    """
local is_paused, is_put_aside, put_aside = {}, nil, 0  -- by number
local paused_kinds

local function obey(text)  -- what it needs is made here: a queue without pauses does not pay for it
    local is_json, said = pcall(cjson.decode, string.sub(text, 17))
    if not is_json then  -- not ours: it is written anew
        is_paused[number] = must_know_pauses
        return
    end
    local function is_in_force(till)  -- until when, in ms; -1: until somebody resumes it
        if till == -1 then return true end
        if till <= now then return false end
        soonest = math.min(soonest, till - now + 1)
        return true
    end
    is_paused[number] = is_in_force(said.till)
    paused_kinds = paused_kinds or {}
    paused_kinds[number] = {}
    for kind, till in pairs(said.kinds) do paused_kinds[number][kind] = is_in_force(till) or nil end

    local function read_kind(message)  -- and whether it has an expiry; of pickles, as arq writes them, the kind
        if string.byte(message) == 128 then
            local _, at = string.find(message, '\\140\\1f\\148\\140', 1, true)
            return at and string.sub(message, at + 2, at + 1 + (string.byte(message, at + 1) or 0))
        end
        local is_json, read = pcall(cjson.decode, message)
        if is_json and type(read) == 'table' then return read.f, read.xt end
    end

    local function is_of_paused_kind(id)
        if not (paused_kinds[number] and next(paused_kinds[number])) then return false end
        local message = redis.pcall('GETEX', 'arq:job:' .. id)  -- not GET: tracking would remember it
        if type(message) ~= 'string' then return false end
        local kind, expires = read_kind(message)
        if not (kind and paused_kinds[number][kind]) then return false end
        if type(redis.pcall('ZSCORE', 'arq:abort', id)) == 'string' then return false end  -- it ends, and does not run
        bytes = bytes - #message
        return kind, expires
    end

    is_put_aside = function(id, score, is_orphan)
        local kind, expires = is_of_paused_kind(id)
        if not kind then return false end
        if is_orphan then
            if not take(id) then return true end  -- another worker has it
            note_crash(id)
            count(id, true)
            redis.call('DEL', 'arq:in-progress:' .. id)
        elseif redis.call('EXISTS', 'arq:in-progress:' .. id) == 1 then return false end  -- an arq worker runs it
        score = math.max(0, math.min(tonumber(score) or 0, LATEST_SCORE))
        redis.call('ZADD', queue, 'XX', PAUSED + score, id)
        redis.call('ZADD', 'arqonce:aside:' .. #queue .. ':' .. queue .. kind, score, id)
        if not expires then redis.call('PEXPIRE', 'arq:job:' .. id, EXPIRY_MS) end
        put_aside = put_aside + 1
        return true
    end
end

local function look_for_pauses()
    local found = redis.pcall('GET', 'arqonce:pauses:' .. queue)
    if type(found) ~= 'string' then is_paused[number] = must_know_pauses
    elseif #found > 16 then obey(found) end
end
""".replace("PAUSED +", f"{PAUSED_MS} +")
    .replace("LATEST_SCORE", str(PAUSED_MS // 2))
    .replace("EXPIRY_MS", str(to_ms(EXPIRY)))
)
"""For the claim, which knows all that is used here."""
