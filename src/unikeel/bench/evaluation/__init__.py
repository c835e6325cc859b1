"""Results of campaigns as conclusions: what differs, what it costs, when it pays; and the report.

- :mod:`.sorting`: which question a series answers; :mod:`.comparing`: differences, and whether two results agree; :mod:`.breakeven`: after how many containers
  what was dearer at first has paid; :mod:`.policy`: what `auto` should choose by results;
- :mod:`.report`: the report as values; :mod:`.wording`: numbers and sentences; :mod:`.figures`: pictures, by matplotlib, imported there alone;
  :mod:`.page`, :mod:`.markdown`: how it looks; :mod:`.writing`: the files.
"""
