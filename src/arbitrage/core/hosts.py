"""Names and addresses of machines."""

import contextlib
import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine under an address that only it can use: 127.0.0.0/8, ::1 or localhost."""
    if host.lower().rstrip(".") == "localhost":
        return True
    with contextlib.suppress(ValueError):  # A name.
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False
