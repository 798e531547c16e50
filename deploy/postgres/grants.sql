-- What each role may do with the tables. Run by app_migrator with psql after each migration, which grants nothing by
-- itself: default privileges know no columns. May be run again at any time, also while workers work.
--
--   psql --set=ON_ERROR_STOP=1 --file=deploy/postgres/grants.sql
--
-- The ledger's tables lie in the schema arqonce; with another DATABASE_LEDGER_SCHEMA give psql --set=ledger=NAME.
\if :{?ledger}
\else
    \set ledger arqonce
\endif
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('users-worker grants')); -- two at once would fail on each other's rows

-- From nothing, so that a right that no longer stands here is gone.
REVOKE ALL ON users, alembic_version, :ledger.receipts, :ledger.dead_jobs, :ledger.outbox, :ledger.unique_requests,
    :ledger.ledger_version, :ledger.schedules, :ledger.schedule_releases, :ledger.pauses, :ledger.audit,
    :ledger.attempts, :ledger.redis_losses
    FROM PUBLIC, app_worker, app_relay, app_operator, app_producer, app_reader;
REVOKE ALL ON SEQUENCE users_id_seq, :ledger.dispatch_epoch
    FROM PUBLIC, app_worker, app_relay, app_operator, app_producer, app_reader;
REVOKE ALL ON SCHEMA :ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA :ledger TO app_worker, app_relay, app_operator, app_producer, app_reader;

-- The worker: handlers find and add users. A job that changes or removes them needs one more line.
GRANT SELECT, INSERT (id, name, email) ON users TO app_worker;
GRANT USAGE ON SEQUENCE users_id_seq TO app_worker;  -- create_users draws its ids first
GRANT SELECT, INSERT (job_id, job_name, request_hash, result, failure, attempt), DELETE ON :ledger.receipts TO app_worker;
GRANT UPDATE (attempt) ON :ledger.receipts TO app_worker;  -- for FOR UPDATE, when old ones are removed; it changes none
GRANT SELECT, DELETE,  -- SELECT of all, because ON CONFLICT reads what it replaces with
      INSERT (job_id, job_name, message, reason, explanation, error, sqlstate, attempts, queue, request_hash),
      UPDATE (job_id, job_name, message, reason, explanation, error, sqlstate, attempts, queue, request_hash, died_at)
    ON :ledger.dead_jobs TO app_worker;
GRANT SELECT, DELETE ON :ledger.outbox TO app_worker;  -- the row goes with the job's receipt or dead letter
GRANT SELECT, INSERT, UPDATE, DELETE ON :ledger.unique_requests TO app_worker;  -- handlers promise; old ones are removed
GRANT SELECT ON alembic_version, :ledger.ledger_version TO app_worker;

-- Schedules: workers and relays promise what is due, and say which schedules there are. Handlers promise follow-ups.
GRANT SELECT, INSERT, UPDATE, DELETE ON :ledger.schedules, :ledger.schedule_releases TO app_worker, app_relay;
GRANT INSERT (job_id, job_name, queue, message, request_hash, due_at, give_at) ON :ledger.outbox TO app_worker, app_relay;

-- Pauses: workers and relays obey them, and only operators change them.
GRANT SELECT ON :ledger.pauses TO app_worker, app_relay, app_reader;
GRANT SELECT, INSERT, UPDATE, DELETE ON :ledger.pauses TO app_operator;

-- What operators did: they add to it and read it, and change nothing in it.
GRANT SELECT, INSERT (who, act, target, number, why) ON :ledger.audit TO app_operator;
GRANT SELECT ON :ledger.audit TO app_reader;

-- Failed attempts: workers add them, and remove old ones. Nobody changes one.
GRANT INSERT (job_id, attempt, job_name, queue, code, sqlstate, error, worker, started_at, failed_at, retry_at, counted),
      SELECT, DELETE ON :ledger.attempts TO app_worker;
GRANT UPDATE (counted) ON :ledger.attempts TO app_worker;  -- for FOR UPDATE, when old ones are removed; it changes none
GRANT SELECT, INSERT, UPDATE (given_again) ON :ledger.redis_losses TO app_relay;
GRANT DELETE ON :ledger.redis_losses TO app_worker;
GRANT SELECT ON :ledger.attempts, :ledger.redis_losses TO app_operator;

-- Operators: list, show, retry and discard dead letters, which hold people's data; list, pause, resume and run
-- schedules, for which they have the rights of a producer as well.
GRANT SELECT, UPDATE (paused_until, paused_at, paused_by, paused_why, updated_at) ON :ledger.schedules TO app_operator;
GRANT SELECT, DELETE, UPDATE (attempts) ON :ledger.dead_jobs TO app_operator;  -- UPDATE: for FOR UPDATE; it changes none
GRANT SELECT (job_id, job_name, request_hash, attempt, finished_at, failure) ON :ledger.receipts TO app_operator;
GRANT SELECT (job_id, job_name, queue, request_hash, due_at, give_at, created_at, epoch, dispatched_at, dispatches)
    ON :ledger.outbox TO app_operator;  -- job show and status: where jobs are, and neither messages nor results
GRANT SELECT ON :ledger.ledger_version TO app_operator;  -- status says whether the tables are there

-- Dashboards: counts, ages and reasons, and nobody's data.
GRANT SELECT (id, created_at) ON users TO app_reader;
GRANT SELECT (job_id, job_name, attempt, finished_at) ON :ledger.receipts TO app_reader;
GRANT SELECT (job_id, job_name, reason, sqlstate, attempts, died_at) ON :ledger.dead_jobs TO app_reader;
GRANT SELECT (job_id, attempt, job_name, queue, code, sqlstate, worker, started_at, failed_at, retry_at, counted)
    ON :ledger.attempts TO app_reader;
GRANT SELECT ON alembic_version, :ledger.ledger_version, :ledger.schedules, :ledger.redis_losses TO app_reader;

-- The relay gives jobs to Redis; what is too old to run it turns into a dead letter. It reads no answers. The worker
-- has its rights as well.
GRANT SELECT, UPDATE (epoch, dispatched_at, dispatches, give_at), DELETE ON :ledger.outbox TO app_relay;
GRANT USAGE ON SEQUENCE :ledger.dispatch_epoch TO app_relay;
GRANT SELECT (job_id, job_name, request_hash) ON :ledger.receipts TO app_relay;
GRANT SELECT,
      INSERT (job_id, job_name, message, reason, explanation, error, sqlstate, attempts, queue, request_hash),
      UPDATE (job_id, job_name, message, reason, explanation, error, sqlstate, attempts, queue, request_hash, died_at)
    ON :ledger.dead_jobs TO app_relay;
GRANT SELECT ON :ledger.ledger_version TO app_relay;
GRANT SELECT ON alembic_version TO app_relay;  -- relays of the version before ask there

-- A producer adds jobs, and learns whether its key is taken, by the same request or another. It reads no message.
GRANT INSERT (job_id, job_name, queue, message, request_hash, due_at, give_at),
      SELECT (job_id, job_name, queue, request_hash, give_at) ON :ledger.outbox TO app_producer;
GRANT SELECT (job_id, job_name, request_hash) ON :ledger.receipts, :ledger.dead_jobs TO app_producer;
GRANT SELECT, INSERT, UPDATE ON :ledger.unique_requests TO app_producer;  -- hashes of requests, and ids of their jobs

GRANT SELECT (job_id, job_name, queue, due_at, give_at, created_at, epoch, dispatched_at, dispatches)
    ON :ledger.outbox TO app_reader;

COMMIT;
