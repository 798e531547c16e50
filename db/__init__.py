"""PostgreSQL: engine, tables, queries, migrations. Knows nothing of jobs, Redis or arq."""
