"""Other people's queues under the same load as the hub, in the same run: ``python -m benchmarks.peers``.

    peer.py         what a peer is
    share.py        what the processes of a load have in common: the documents, and what became of each
    load.py         one load on one peer, from warm-up to conservation check
    child.py        a process that sends and receives; `Client` is what a peer fills in
    services.py     server processes: started on loopback, their CPU counted, ended with all their descendants
    hub.py          the hub's own figure, measured before and after each peer
    rabbitmq.py jetstream.py procrastinate.py skip_locked.py pyas2.py       the peers
    bare_amqp.py bare_nats.py       clients as lean as the hub's load generator
    pyas2_site.py pyas2_sender.py   what runs in django-pyas2's own environment
    sweep.py        tries the settings that a peer names, to find its best
    tables.py       the console's table, results/peers.md, results/latest.json

Read benchmarks/PEERS.md before quoting a figure.
"""
