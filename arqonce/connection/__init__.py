"""Connections to Redis or Valkey: where it is, who may be asked, what is wrong with it. Knows no job."""
