"""The Python client: it answers a round from local events with one masked report.

config   what is pinned and what the person allows        docs/protocol.md section 14, steps 1 to 3
admit    whether a round may be answered at all           steps 1 and 2
client   the order of duties, and sending                 steps 3 to 7
store    events, ledger, pending reports, receipts        in SQLite, or in memory
fleet    many clients in one process, for demonstrations and benchmarks
"""
