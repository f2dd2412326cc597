"""What a round needs from a scheme, and the schemes there are (docs/protocol.md sections 4 to 7).

Adding a scheme is adding a module here; the services call these functions and know no cryptography.
"""
