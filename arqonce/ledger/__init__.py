"""The record of promised, ended and dead jobs in PostgreSQL: tables, queries, migrations. Knows no queue."""
