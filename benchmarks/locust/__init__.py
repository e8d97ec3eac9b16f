"""Locust against the hub: users are agency systems. README.md is for whoever wants to run it.

`prepare` signs documents before the clock starts, `load` is what it prepared, `schedule` says when each is due,
`account` counts it through to its acknowledgement. `calls` and `stream_calls` are the requests of the two doors,
each answer checked. `run` is what the locustfiles `http_door` and `stream_door` share: options, shapes,
settling, the verdict.
"""
