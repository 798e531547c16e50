"""Files of people: reads CSV as people write it, imports the rows through the queue, and lists those refused."""
