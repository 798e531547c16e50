"""The data in Redis: arq's keys and messages, job ids, and hashes that identify requests. Opens nothing."""
