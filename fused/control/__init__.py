"""The control socket: Varlink on RUNTIME_DIR/io.fused.Manager.

interface   io.fused.Manager, declared once: methods, rights, types, errors
rights      who may call what
server      connections; the manager's side
client      the side of fusedctl
"""

import os

SOCKET_NAME = "io.fused.Manager"


def socket_path(runtime_dir: str) -> str:
    """Where the manager of a runtime directory listens."""
    return os.path.join(runtime_dir, SOCKET_NAME)
