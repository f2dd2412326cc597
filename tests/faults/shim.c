/* Preloaded into one process under test, this makes its disk slow or full and its clock wrong.
 *
 * What it does is read from a file of shared memory, named by FAULTS_CONTROL, that the driver
 * changes while the process runs; `shim.py` holds the same layout. A process forked or started by
 * that one reads the same file. Without the variable nothing is changed.
 *
 *   clock_shift_ns   added to the wall clock; the steady clock stays right
 *   sync_delay_us    every fsync and fdatasync takes so much longer
 *   room             bytes that files below `folder` may still grow by in all; -1: no limit.
 *                    When it is used up, writing and syncing there fail with ENOSPC. A write that
 *                    does not fit is cut short first, as a real disk does.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    _Atomic int64_t clock_shift_ns;
    _Atomic int64_t sync_delay_us;
    _Atomic int64_t room;
    _Atomic int64_t syncs_delayed;
    _Atomic int64_t refused;
    char folder[1024];
};

static struct control *control;

#define REAL(result, name, ...)                                   \
    static result (*real)(__VA_ARGS__);                           \
    if (!real) real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("FAULTS_CONTROL");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *found = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (found != MAP_FAILED) control = found;
}

static int below(const char *path) {
    size_t length = strlen(control->folder);
    return length > 0 && strncmp(path, control->folder, length) == 0 && path[length] == '/';
}

/* Whether writes to this file are limited now. */
static int limited(int fd) {
    if (!control || control->room < 0) return 0;
    int before = errno;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

/* How many of `wanted` bytes there is room for; they are taken. */
static size_t take(size_t wanted) {
    int64_t left = control->room;
    while (left >= 0) {
        int64_t taken = left < (int64_t)wanted ? left : (int64_t)wanted;
        if (atomic_compare_exchange_weak(&control->room, &left, left - taken)) {
            if (taken == 0 && wanted > 0) control->refused++;
            return (size_t)taken;
        }
    }
    return wanted;
}

static int full(void) {
    control->refused++;
    errno = ENOSPC;
    return -1;
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    if (size > 0 && limited(fd) && (size = take(size)) == 0) { errno = ENOSPC; return -1; }
    return real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    if (size > 0 && limited(fd) && (size = take(size)) == 0) { errno = ENOSPC; return -1; }
    return real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    if (size > 0 && limited(fd) && (size = take(size)) == 0) { errno = ENOSPC; return -1; }
    return real(fd, data, size, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    /* One part at a time is a short write, which every caller must bear. */
    if (count > 0 && limited(fd)) return write(fd, parts[0].iov_base, parts[0].iov_len);
    return real(fd, parts, count);
}

int fallocate(int fd, int mode, off_t at, off_t size) {
    REAL(int, "fallocate", int, int, off_t, off_t);
    if (limited(fd) && control->room < size) return full();
    return real(fd, mode, at, size);
}

static int delayed(int fd) {
    if (!control) return 0;
    int64_t delay = control->sync_delay_us;
    if (delay > 0) {
        struct timespec pause = {delay / 1000000, delay % 1000000 * 1000};
        control->syncs_delayed++;
        while (nanosleep(&pause, &pause) < 0 && errno == EINTR) {}
    }
    return limited(fd) && control->room == 0 ? full() : 0;
}

int fsync(int fd) {
    REAL(int, "fsync", int);
    return delayed(fd) < 0 ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(int, "fdatasync", int);
    return delayed(fd) < 0 ? -1 : real(fd);
}

static void limit_statvfs(const char *path, struct statvfs *found) {
    size_t length = control ? strlen(control->folder) : 0;
    if (!length || control->room < 0 || strncmp(path, control->folder, length) != 0) return;
    fsblkcnt_t blocks = (fsblkcnt_t)control->room / (found->f_frsize ? found->f_frsize : 1);
    if (blocks < found->f_bavail) found->f_bavail = found->f_bfree = blocks;
}

int statvfs(const char *path, struct statvfs *found) {
    REAL(int, "statvfs", const char *, struct statvfs *);
    int result = real(path, found);
    if (result == 0) limit_statvfs(path, found);
    return result;
}

int statvfs64(const char *path, struct statvfs64 *found) {
    return statvfs(path, (struct statvfs *)found);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(int, "clock_gettime", clockid_t, struct timespec *);
    int result = real(clock, now);
    if (result != 0 || !control || !control->clock_shift_ns) return result;
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        int64_t moment = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + control->clock_shift_ns;
        now->tv_sec = moment / 1000000000;
        now->tv_nsec = moment % 1000000000;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise) == 0) {
        now->tv_sec = precise.tv_sec;
        now->tv_usec = precise.tv_nsec / 1000;
    }
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
