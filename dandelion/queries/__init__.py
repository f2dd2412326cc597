"""What is asked: event schema -> SQL -> plan -> vector -> result (docs/protocol.md section 15).

`schema` declares the events, `sql` compiles a question about one of them, `plan` is what a client
runs, `decode` turns released sums into a table and `explain` puts a plan into plain words. Nothing
is re-exported here, so that a client that only runs plans does not load the SQL front end.
"""
