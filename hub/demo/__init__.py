"""A morning of documents in Yên Bái, relayed by a real hub: what ``lienthong demo`` plays.

`agencies`  who takes part: the province, its departments, districts and communes, the Government Office
`morning`   what they write between 7:30 and 11:30, and how the recipients answer
`papers`    the bytes of it: PDF attachments, edXML messages
`witnesses` two agencies that sign the hub's log along
`trial`     an authority for trials, in whose certificates two agencies' keys came
`node`      a data directory of the demo's own, and the hub that runs in it
`nation`    the second act: a hub of the nation's, linked with the province's; `axis` a system connected to it
`run`       plays the morning through `protocol.client` and checks that everything adds up
`show`      what the spectator sees

The hub is started as an operator starts it (``lienthong serve``), and nothing reaches into it: what the
demo knows, it knows from answers over HTTP and from receipts, which it verifies itself.
"""
