/* Preloaded beside libfaketime, which knows pthread_cond_timedwait but not C11's cnd_timedwait, by which librdkafka waits. */
#include <errno.h>
#include <pthread.h>
#include <threads.h>

int cnd_timedwait(cnd_t *cond, mtx_t *mutex, const struct timespec *until)
{
    /* glibc's C11 types are its POSIX types under another name. */
    switch (pthread_cond_timedwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, until)) {
    case 0:
        return thrd_success;
    case ETIMEDOUT:
        return thrd_timedout;
    default:
        return thrd_error;
    }
}
