"""The manager: keeps the real mounts equal to the described ones, and answers for them.

    process    one manager per runtime directory: signals, sd_notify, the control socket
    mounts     what is wanted, and the verbs: mount, unmount, restart, reload
    plan       the difference of two configurations
    status     what is so: ledger, process and launcher together
    stale      mounts whose worker is gone for good
    unmount    umount2(2) in a child process, because it may hang
    holders    who uses a busy mount

It keeps no state that it cannot read again, and never touches a path on a mount.
"""
