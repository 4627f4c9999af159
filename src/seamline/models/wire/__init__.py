"""What language models are asked and answer, as JSON of others: to and from the words of :mod:`seamline.models.chat`.

Both sides: what a client of an engine sends and reads (``..._body``, ``read_...``), and what a server of that wire
reads and sends (``asked_...``, ``told_...``). Nothing here touches a socket.
"""
