"""The command line: one file per command, the logic stays in the library.

- :mod:`.main`: the entry point: which command, errors, exit codes. Everything else is imported when it is needed: see "start-up" there.
- :mod:`.options`: the tables that describe a command, and the parser that reads them. :mod:`.commands`: which commands there are.
- :mod:`.session`: the options of all commands, and the engine they open. :mod:`.failures`: from an exception to a sentence and an exit code.
- :mod:`.helping`, :mod:`.completing`, :mod:`.reference`: help, shell completion and docs/cli.md, made from the same tables.
- :mod:`.output`, :mod:`.progress`: tables, JSON, sizes, ages; how long work shows on a terminal.
- :mod:`.containing`, :mod:`.starting`: what ``run``, ``create`` and ``start`` share. :mod:`.timing`: the timeline's zero point.
- every other module is the command of its name (``image_ls`` is ``image ls``).
"""
