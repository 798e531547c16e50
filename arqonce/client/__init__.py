"""How producers enqueue jobs and wait for their results, from asyncio, threads and greenlets."""
