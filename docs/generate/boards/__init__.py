"""The Grafana boards of the monitoring component, as data. A test holds the committed ones to it."""
