/* Loaded before a contender, this makes every flush take longer, as on a disk that really flushes: SLOW_FLUSH_US more
   microseconds for each fsync and fdatasync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

static void linger(void)
{
    const char *told = getenv("SLOW_FLUSH_US");
    long micros = told ? atol(told) : 0;
    struct timespec delay = {micros / 1000000, micros % 1000000 * 1000};
    nanosleep(&delay, NULL);
}

int fsync(int file)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    linger();
    return real(file);
}

int fdatasync(int file)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    linger();
    return real(file);
}
