"""What real sockets do to a real server: bytes that are no request, peers that are slow, frames that break rules, and floods."""
