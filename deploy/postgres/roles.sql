-- The roles, for PostgreSQL 15 and later. Run by a superuser with psql in the database, before the first migration;
-- may be run again at any time. Roles get no password here: \password app_worker in psql sends only its hash.
--
--   psql --set=ON_ERROR_STOP=1 --file=deploy/postgres/roles.sql
--
-- What they may do with the tables is granted by grants.sql, after each migration.
--
-- The tables that record jobs lie in the schema arqonce; with another DATABASE_LEDGER_SCHEMA give psql --set=ledger=NAME.
\if :{?ledger}
\else
    \set ledger arqonce
\endif
BEGIN;

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['app_owner', 'app_migrator', 'app_worker', 'app_relay', 'app_operator',
                                  'app_producer', 'app_reader'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I', wanted);
        END IF;
    END LOOP;
END $$;

-- The limits sum up to less than max_connections (100), so that none of them shuts the others out. A worker process
-- takes WORKER_MAX_JOBS connections and a few more.
ALTER ROLE app_owner    NOLOGIN;                       -- owns everything
ALTER ROLE app_migrator LOGIN CONNECTION LIMIT 3;      -- users-worker migrate
ALTER ROLE app_worker   LOGIN CONNECTION LIMIT 60;     -- users-worker run
ALTER ROLE app_relay    LOGIN CONNECTION LIMIT 10;     -- users-worker relay: three each, of two during a rollout
ALTER ROLE app_operator LOGIN CONNECTION LIMIT 3;      -- users-worker status, job, dead, schedules, queue, workers, audit
ALTER ROLE app_producer LOGIN CONNECTION LIMIT 10;     -- enqueues in its transactions; or GRANT it to a service's role
ALTER ROLE app_reader   LOGIN CONNECTION LIMIT 5;      -- dashboards: sees jobs, and nobody's data

GRANT app_owner TO app_migrator;
ALTER ROLE app_migrator SET role = 'app_owner';        -- what it makes belongs to the owner
GRANT app_relay TO app_worker;                         -- each worker contains a relay
GRANT app_producer TO app_operator;                    -- schedules run-now promises a job

-- Defaults, not bounds: a session may set others, and our engine sets two of its own (DATABASE_STATEMENT_TIMEOUT, a
-- minute idle in transaction). None for the migrator: an index takes hours, and so does waiting for one.
ALTER ROLE app_worker   SET statement_timeout = '20s';
ALTER ROLE app_worker   SET lock_timeout = '10s';      -- the job is tried again; 5 attempts outlast most locks
ALTER ROLE app_worker   SET idle_in_transaction_session_timeout = '1min';
ALTER ROLE app_relay    SET statement_timeout = '20s';
ALTER ROLE app_relay    SET lock_timeout = '10s';
ALTER ROLE app_relay    SET idle_in_transaction_session_timeout = '1min';
ALTER ROLE app_operator SET statement_timeout = '20s';
ALTER ROLE app_operator SET lock_timeout = '10s';
ALTER ROLE app_operator SET idle_in_transaction_session_timeout = '1min';
ALTER ROLE app_producer SET statement_timeout = '5s';  -- somebody's request waits for it
ALTER ROLE app_producer SET lock_timeout = '3s';
ALTER ROLE app_producer SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE app_reader   SET statement_timeout = '5s';
ALTER ROLE app_reader   SET lock_timeout = '1s';
ALTER ROLE app_reader   SET idle_in_transaction_session_timeout = '10s';
ALTER ROLE app_reader   SET default_transaction_read_only = on;

-- A violated constraint's DETAIL repeats the row: "Key (email)=(jane@example.org) already exists". Not in the log.
-- Only a superuser may set this; elsewhere set it for the server.
DO $$
BEGIN
    ALTER ROLE app_worker SET log_error_verbosity = 'terse';
    ALTER ROLE app_producer SET log_error_verbosity = 'terse';
EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'set log_error_verbosity = terse for the server: its log would repeat people''s data';
END $$;

-- The database is for these roles alone. In one that other services use as well, leave the two REVOKEs out.
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO app_migrator, app_worker, app_relay, app_operator, app_producer, '
                   'app_reader', current_database());
END $$;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO app_owner;
GRANT USAGE ON SCHEMA public TO app_worker, app_relay, app_operator, app_producer, app_reader;
CREATE SCHEMA IF NOT EXISTS :ledger;                   -- so that the migrator needs no right to make schemas
ALTER SCHEMA :ledger OWNER TO app_owner;

-- Tables that somebody else has migrated already come into the owner's hands; also those of the version before.
SELECT format('ALTER %s %s OWNER TO app_owner',
              CASE relkind WHEN 'S' THEN 'SEQUENCE' WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, pg_class.oid::regclass)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relowner <> 'app_owner'::regrole AND relkind IN ('r', 'S', 'v') AND (
    (nspname = :'ledger' AND relname IN ('receipts', 'dead_jobs', 'outbox', 'unique_requests', 'schedules',
                                         'schedule_releases', 'pauses', 'audit', 'attempts', 'redis_losses',
                                         'dispatch_epoch', 'ledger_version'))
    OR (nspname = 'public' AND relname IN ('users', 'alembic_version', 'job_receipts', 'job_outbox',
                                           'job_dispatch_epoch'))
    OR (nspname = 'public' AND relname = 'dead_jobs' AND to_regclass('public.job_receipts') IS NOT NULL))
\gexec

COMMIT;
