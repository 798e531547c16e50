"""What operators do to queues and workers: recorded in PostgreSQL with the audit, then said in Redis."""
