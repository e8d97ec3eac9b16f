"""Signatures in PDF attachments (PAdES): checked beside the relay, in processes that may die.

`result`    what is found of a PDF, and what a policy makes of it
`trusted`   whom to believe, and why a signature is not
`place`     where a signature is seen on the page
`check`     finding it, with pyHanko; imported in the checking processes alone
`process`   a checking process: bounds itself, then checks what it is handed
`pool`      those processes as a hub process sees them: started for the first PDF, killed when one takes too long
`source`    the PDFs among a message's attachments, in whatever format the message is
`policy`    what submissions pass through whose endpoint requires signatures
`queue`     what is checked after it was accepted: in the database, so that nothing is forgotten

A PDF comes from a stranger and is the most intricate thing that the hub ever reads. So no hub process reads one:
not even pyHanko is imported there, which would cost each of them memory and a third of a second at the start.
"""
