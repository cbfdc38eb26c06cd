"""`fusedctl`: a mere client of the control socket.

commands   one function a verb
tables     what people see
"""


def main() -> None:
    """Run fusedctl; exits with 0 done, 1 refused or failed, 2 usage, 3 no manager, 4 bug."""
    from fused.cli.commands import fusedctl

    fusedctl(prog_name="fusedctl")
