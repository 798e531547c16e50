"""PostgreSQL: settings, engine, connections, transactions, migrations. Knows no job and no table."""
