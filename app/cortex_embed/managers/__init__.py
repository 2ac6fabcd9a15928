"""Running the server under a service manager: systemd, launchd, Windows' Task Scheduler.

Each has a module with its definition (text only, the same on every machine for the same job) and
its tool. None may be imported before `cortex-embed service` was asked for.
"""
