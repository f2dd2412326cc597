"""What collector and helper share as programs: identity file, TOML configuration, log lines.

Not part of the protocol library: this package touches disk, clock and log. Anything that the two
decide differently stays in each of them.
"""
