"""Claims at tiny scale, each with seeds, controls and a result file: `python -m experiments NAME`."""
