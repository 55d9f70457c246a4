"""Messages of Arrow IPC streams, which are checked before Arrow reads them."""
