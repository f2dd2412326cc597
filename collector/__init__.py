"""The service that adds: it sums masked reports and can read none of them."""
