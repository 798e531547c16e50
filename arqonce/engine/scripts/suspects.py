"""The parts of the scripts that know which jobs are suspected of killing their workers.

Whoever is among the jobs of a worker that dies may be the cause, or stood beside it. A job that was there at **two**
deaths is a suspect: it runs alone, in a worker that runs nothing else meanwhile, so that its next death is its own. The
first death suspects nobody: after a killed deploy a thousand jobs start again at once.

Deaths in company count as starts, but not towards a job's limit of attempts: they are excused. A death alone counts. An
attempt that ends, however it does, clears the job.

``arqonce:crashes:<queue>`` holds, for each job that was there at a death, twice the number of its excused deaths,
and one more while it runs alone. Without crashes it does not exist, which is all that healthy queues pay for.
``arqonce:apart:<queue>`` names the one busy worker that finishes what it has in order to take a suspect; idle ones
take them in any case.
"""

SUSPECTS = """
local crashes, apart
local has_crashes = {}

local function suspect_in(queue)
    crashes, apart = 'arqonce:crashes:' .. queue, 'arqonce:apart:' .. queue
end

local function crash_score(id)
    if has_crashes[crashes] == nil then has_crashes[crashes] = redis.call('EXISTS', crashes) == 1 end
    if not has_crashes[crashes] then return 0 end
    local score = redis.pcall('ZSCORE', crashes, id)
    if type(score) == 'table' then redis.call('DEL', crashes) end  -- an error: it is of another type
    return type(score) == 'string' and tonumber(score) or 0
end

local function excused(id) return math.floor(crash_score(id) / 2) end

local function is_suspect(id) return excused(id) >= 2 end

local function set_crash_score(id, score)
    has_crashes[crashes] = true
    redis.call('ZADD', crashes, score, id)
    redis.call('PEXPIRE', crashes, retry_ms)
end

local function note_crash(id)  -- of the worker that ran it: whether it ran alone is known no longer than that
    local score = crash_score(id)
    set_crash_score(id, score % 2 == 1 and score - 1 or score + 2)
end
"""
"""For a script that knows ``retry_ms``, and calls ``suspect_in`` first for each queue."""
