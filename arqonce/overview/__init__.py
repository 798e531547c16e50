"""What operators see: the state of the whole, and the story of one job. Asks both servers and changes nothing."""
