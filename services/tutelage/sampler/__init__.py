"""Writes the text of runs that ask for it, from published student snapshots, on other machines than their trainers."""
