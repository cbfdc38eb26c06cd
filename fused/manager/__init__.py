"""The manager: keeps the real mounts equal to the described ones, and answers for them.

    commandline, logs   what is said to it, and where it says what
    process    one manager per runtime directory: signals, sd_notify, the control socket
    manager    what is wanted, made so, kept so, and told to whoever asks
    plan       the difference of two configurations
    mounts     the verbs for one mount
    status     what is so: ledger, process and launcher together
    stale      mounts whose worker is gone for good
    unmount    umount2(2) in a child process, because it may hang

It keeps no state that it cannot read again, and never touches a path on a mount.
"""
