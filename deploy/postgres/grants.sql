-- What each role may do with the tables. Run by app_migrator with psql after each migration, which grants nothing by
-- itself: default privileges know no columns. May be run again at any time, also while workers work.
--
--   psql --set=ON_ERROR_STOP=1 --file=deploy/postgres/grants.sql
BEGIN;
SELECT pg_advisory_xact_lock(hashtext('users-worker grants')); -- two at once would fail on each other's rows

-- From nothing, so that a right that no longer stands here is gone.
REVOKE ALL ON users, job_receipts, dead_jobs, alembic_version
    FROM PUBLIC, app_worker, app_relay, app_operator, app_producer, app_reader;
REVOKE ALL ON SEQUENCE users_id_seq FROM PUBLIC, app_worker, app_relay, app_operator, app_producer, app_reader;

-- The worker: handlers find and add users. A job that changes or removes them needs one more line.
GRANT SELECT, INSERT (id, name, email) ON users TO app_worker;
GRANT USAGE ON SEQUENCE users_id_seq TO app_worker;  -- create_users draws its ids first
GRANT SELECT, INSERT (job_id, job_name, request_hash, result, attempt), DELETE ON job_receipts TO app_worker;
GRANT UPDATE (attempt) ON job_receipts TO app_worker;  -- for FOR UPDATE, when old ones are removed; it changes none
GRANT SELECT, DELETE,  -- SELECT of all, because ON CONFLICT reads what it replaces with
      INSERT (job_id, job_name, message, reason, explanation, error, sqlstate, attempts),
      UPDATE (job_id, job_name, message, reason, explanation, error, sqlstate, attempts, died_at)
    ON dead_jobs TO app_worker;
GRANT SELECT ON alembic_version TO app_worker;

-- Operators: list, show, retry and discard dead letters, which hold people's data.
GRANT SELECT, DELETE ON dead_jobs TO app_operator;
GRANT SELECT (job_id) ON job_receipts TO app_operator;

-- Dashboards: counts, ages and reasons, and nobody's data.
GRANT SELECT (id, created_at) ON users TO app_reader;
GRANT SELECT (job_id, job_name, attempt, finished_at) ON job_receipts TO app_reader;
GRANT SELECT (job_id, job_name, reason, sqlstate, attempts, died_at) ON dead_jobs TO app_reader;
GRANT SELECT ON alembic_version TO app_reader;

COMMIT;
