"""Where people meet it: integrations, one file each, loaded by nobody but their users."""
