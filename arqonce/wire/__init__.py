"""What stands in Redis: arq's keys and messages, ids, and what tells one request from another. Opens nothing."""
