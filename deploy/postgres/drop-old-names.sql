-- Removes the names that the ledger's tables had in public before they got a schema of their own. Run by app_migrator with
-- psql once no worker, relay or producer of that version runs any more; may be run again.
--
--   psql --set=ON_ERROR_STOP=1 --file=deploy/postgres/drop-old-names.sql
--
-- A table or a sequence of your own that has one of these names is left: DROP VIEW refuses a table, and the sequence goes
-- only with the views.
BEGIN;

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_views WHERE schemaname = 'public' AND viewname = 'job_receipts') THEN
        DROP VIEW public.job_receipts, public.job_outbox, public.dead_jobs;
        DROP SEQUENCE public.job_dispatch_epoch;
    END IF;
END $$;

COMMIT;
