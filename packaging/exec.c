/*
 * $(exec COMMAND) for GNU make: the process that is make becomes COMMAND, run by sh.
 *
 * A signal to make ends it with a status of its own, whatever the recipe does.  `make run` is to
 * end as the manager ends, so there must be no make any more.
 */
#include <gnumake.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

int plugin_is_GPL_compatible;

static char *become(const char *name, unsigned int argc, char **argv)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execl("/bin/sh", "sh", "-c", argv[0], NULL);
    return NULL;
}

int exec_gmk_setup(void)
{
    gmk_add_function("exec", become, 1, 1, GMK_FUNC_DEFAULT);
    return 1;
}
