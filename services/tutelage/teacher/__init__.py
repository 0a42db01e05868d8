"""The teacher: one frozen model behind one scorer with two doors, HTTP and the queue."""
