"""Decisions without clocks, sleeps or sockets."""
