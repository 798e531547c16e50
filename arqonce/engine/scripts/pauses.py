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
    f"local PAUSED, LATEST_SCORE, EXPIRY_MS = {PAUSED_MS}, {PAUSED_MS // 2}, {to_ms(EXPIRY)}"
    """
local paused_kinds, is_paused, put_aside = {}, {}, 0  -- by number

local function is_in_force(till)  -- until when, in ms; -1: until somebody resumes it
    if till == -1 then return true end
    if till <= now then return false end
    soonest = math.min(soonest, till - now + 1)
    return true
end

local function look_for_pauses()
    local found = redis.pcall('GET', 'arqonce:pauses:' .. queue)
    if type(found) ~= 'string' then
        is_paused[number] = must_know_pauses
        return
    end
    if #found <= 16 then return end
    local is_json, said = pcall(cjson.decode, string.sub(found, 17))
    if not is_json then  -- not ours: it is written anew
        is_paused[number] = must_know_pauses
        return
    end
    is_paused[number] = is_in_force(said.till)
    for kind, till in pairs(said.kinds) do
        if is_in_force(till) then
            paused_kinds[number] = paused_kinds[number] or {}
            paused_kinds[number][kind] = true
        end
    end
end

local function read_kind(message)  -- its kind, and whether it has an expiry; of pickles, as arq writes them, the kind
    if string.byte(message) == 128 then
        local _, at = string.find(message, '\\140\\1f\\148\\140', 1, true)
        return at and string.sub(message, at + 2, at + 1 + (string.byte(message, at + 1) or 0))
    end
    local is_json, said = pcall(cjson.decode, message)
    if is_json and type(said) == 'table' then return said.f, said.xt end
end

local function is_of_paused_kind(id)
    if not paused_kinds[number] then return false end
    local message = redis.pcall('GETEX', 'arq:job:' .. id)  -- not GET: tracking would remember it
    if type(message) ~= 'string' then return false end
    local kind, expires = read_kind(message)
    if not (kind and paused_kinds[number][kind]) then return false end
    if type(redis.pcall('ZSCORE', 'arq:abort', id)) == 'string' then return false end  -- it ends, and runs not at all
    bytes = bytes - #message
    return kind, expires
end

local function put_job_aside(id, score, kind, expires)
    score = math.max(0, math.min(tonumber(score) or 0, LATEST_SCORE))
    redis.call('ZADD', queue, 'XX', PAUSED + score, id)
    redis.call('ZADD', 'arqonce:aside:' .. #queue .. ':' .. queue .. kind, score, id)
    if not expires then redis.call('PEXPIRE', 'arq:job:' .. id, EXPIRY_MS) end
    put_aside = put_aside + 1
end

local function is_put_aside(id, score, is_orphan)
    local kind, expires = is_of_paused_kind(id)
    if not kind then return false end
    if is_orphan then
        if not take(id) then return true end  -- another worker has it
        note_crash(id)
        count(id, true)
        redis.call('DEL', 'arq:in-progress:' .. id)
    elseif redis.call('EXISTS', 'arq:in-progress:' .. id) == 1 then return false end  -- an arq worker runs it
    put_job_aside(id, score, kind, expires)
    return true
end
"""
)
"""For the claim, which knows all that is used here."""
