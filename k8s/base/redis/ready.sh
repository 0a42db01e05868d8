#!/bin/sh
# A server that asks who we are has read its file; one that still reads it says LOADING.
redis-cli ping 2>&1 | grep -q -e PONG -e NOAUTH
