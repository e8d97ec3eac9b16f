"""The relay: from a sender's bytes to a recipient's acknowledgement.

Read it in this order, which is the order in which a message meets it:

`intake`       bytes in, receipt or problem out; runs the steps below
`admission`    is there room? every queue is bounded, in bytes, and nobody has all of it (`rates`: how fast)
`opening`      what is it? does this endpoint speak for its sender, and may the key that it names sign for both
`beyond`       did it come over a link? whose key, for whom, through which hubs
`verify`       is the signature right? in groups, off the event loop
`attached`     are its attachments here, and signed where their endpoint's policy asks for it?
`references`   does it speak of other documents, and may it?
`secrecy`      is it a state secret by its own marks? then it does not pass
`route`        whose mailboxes? agencies to endpoints in one picture of the directory
`package_signatures`  what edXML's own signatures are worth, for endpoints whose policy asks
`repeats`      was it sent before? as far as there is time to look
`commit`       one transaction for whatever has arrived meanwhile, one signature for all its receipts (`batch`)
`answering`    what each submission is told: its receipt, the one that it was given before, or a sealed refusal
`wake`         who waits for mail that has just been committed? here and in other processes (`live`: the mail)
`handovers`    what was just given to recipients, to be sealed soon (`handed`: enough to end it without reading)
`acknowledge`  the recipient has it, refuses it, or it came too late: sealed like acceptance, and with it the
               hand-over (`acknowledgement`: what is asked of which mailboxes; `signed`: under the recipient's own
               signature; `ending`: the batch)
`handover_sealing`  the hand-overs that nobody acknowledged soon
`recall`       the sender wants it back, which works as long as nobody was given it (`openings`)

What is subtle, and where it is settled:

*Nothing is answered before COMMIT returns.* Throughput comes from `batcher`: the commit under way is the
time in which the next batch gathers. What does not fit into the next batch lines up by endpoint, and endpoints
take turns.

*A reader never skips a message.* Sequences are given out under an advisory lock that is held until the
commit (`commit_messages` in hub/store/migrations), so a lower sequence never becomes visible after a
higher one. The lock covers the inbox rows and the fsync, not the messages themselves.

*A message is in a mailbox once.* The sender's id is unique per endpoint and that check commits with the
message; a commit whose outcome was lost with its connection is sent again with the same ids.

*A mailbox is not a table of states.* It is an append-only list, a floor up to which all is done, and a
few ranges beyond it (`ranges`). Reading changes nothing; a million waiting entries cost nothing.

*Evidence of deliveries is compact.* A run of hundreds of acknowledged entries is one row, and a leaf each in a
sealed batch, which tells of the hand-over too. The text of each event is derived again when somebody asks
(`events`).
"""
