"""What tests of unikeel, and of other makers' parts for it, share: conformance suites and stand-ins.

Importing this package imports nothing; the suites need pytest.
"""
