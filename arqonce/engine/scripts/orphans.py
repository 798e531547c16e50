"""The part of the claim that takes jobs whose owner has let the lease end, before any other."""

ORPHANS = """
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
"""
"""Defines ``claim_orphans``. Uses what the script of claims has defined before."""
