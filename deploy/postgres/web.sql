-- The role of users-web, where you run it. By a superuser, once roles.sql and grants.sql have run; may be run again.
--
--   psql --set=ON_ERROR_STOP=1 --file=deploy/postgres/web.sql
--
-- With another DATABASE_LEDGER_SCHEMA than arqonce give psql --set=ledger=NAME.
\if :{?ledger}
\else
    \set ledger arqonce
\endif
BEGIN;

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app_web') THEN
        CREATE ROLE app_web;
    END IF;
END $$;

ALTER ROLE app_web LOGIN CONNECTION LIMIT 40;  -- WEB_POOL_SIZE (10) each, three during a rollout; mind max_connections
GRANT app_producer TO app_web;                 -- to accept through the outbox, and to know whose a key is
GRANT SELECT ON users TO app_web;
GRANT SELECT (job_id, result, failure) ON :ledger.receipts TO app_web;
GRANT SELECT (job_id, reason, explanation) ON :ledger.dead_jobs TO app_web;  -- and not what was asked

COMMIT;
