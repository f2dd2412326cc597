"""What a release costs and who has paid (docs/protocol.md section 16)."""
