"""The hub. A message goes through these folders in this order:

doors/      requests in, answers out; what a client can see
relay/      the hot path: admission, signature, route, group commit, wake, acknowledge
couriers/   how messages leave
directory/  who is who: agencies, endpoints, keys, tokens, as an immutable picture in memory
evidence/   what happened, with receipts
store/      PostgreSQL and files
observe/    metrics, logs, reports
"""
