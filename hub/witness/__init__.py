"""A witness: a small program with which an agency co-signs the transparency logs that it follows.

It stands alone: a key, a file of state, an address. No hub and no PostgreSQL. The rules are those of
`protocol/witness.py`; here is what keeps them true across crashes and concurrent requests (`state`) and what
answers requests (`server`). `lienthong witness` (hub/cli/witness.py) runs it.
"""
