"""What PostgreSQL knows of jobs: promised, ended, dead. Tables, queries, migrations. Knows no queue."""
