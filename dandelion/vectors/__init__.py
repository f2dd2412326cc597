"""Published test vectors (docs/protocol.md section 17): `make vectors` writes them.

`operations` says what a vector means, `inputs` which there are, `__main__` writes the files.
"""
