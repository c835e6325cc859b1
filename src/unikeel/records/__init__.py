"""What is written down before it is done: the record store, the owners of records, and the points where tests stop us.

- :mod:`.database`: one SQLite file, WAL, every write transaction durable when it returns.
- :mod:`.owners`: who a record belongs to, and whether that process still lives.
- :mod:`.intents`: "I am about to make this in the kernel", and what is to be undone when its owner is dead.
- :mod:`.failpoint`: named instructions at which a test may stop or kill the process.

Imports nothing of ours but :mod:`unikeel.errors`, so that every other package may record.
"""
