"""A small certificate authority for trials, tests and the demo: what ``lienthong ca`` plays.

Every name that it writes says that its certificates are for trial only. It keeps its key in a file, knows one
level of authorities and asks nobody for approval: it is not something to sign real documents with.

`authority`   issues, revokes, lists, answers
`responder`   the same over HTTP, on loopback
"""
