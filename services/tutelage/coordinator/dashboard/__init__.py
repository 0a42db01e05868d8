"""The dashboard: pages that the coordinator makes itself, and a little script that keeps them fresh.

The server writes every page whole, so it can be read before a script has run and without one. The script draws the
charts from the numbers in the page and, when the event stream of a run says that something happened, fetches the page
again and puts its parts marked `data-live` in place of the old ones. Nothing is fetched from anywhere else.
"""
