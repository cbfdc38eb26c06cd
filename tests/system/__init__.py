"""fused on a machine with systemd, installed as its users do it."""
