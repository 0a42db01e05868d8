"""Models behind HTTP: one engine, a dialect for each kind of server, and the care that every upstream needs."""
