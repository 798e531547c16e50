"""Connections to Redis or Valkey: addresses, roles of servers, explanations of errors. Knows no job."""
