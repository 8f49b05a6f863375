/* Counts the file operations of a process and makes the Nth one fail, or be the last. Preloaded by test_operations.py.

   fault_arm(n, mode): count from now on. Modes: 1 the process is killed instead of the operation; 2 it is killed
   after half of a write; 3 the operation fails with EIO; 4 with ENOSPC. fault_count(): operations seen since. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

static volatile int armed, mode, at, seen;

void fault_arm(int n, int m) { at = n; mode = m; seen = 0; armed = 1; }
void fault_disarm(void) { armed = 0; }
int fault_count(void) { return seen; }

/* Whether this operation is the one; `half` is set if half of it is to be done first. */
static int hit(int *half) {
    if (!armed || ++seen != at) return 0;
    if (mode == 2 && half) { *half = 1; return 0; }
    if (mode == 1 || mode == 2) kill(getpid(), SIGKILL);
    errno = mode == 4 ? ENOSPC : EIO;
    return 1;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, #name)

#define WRITER(name, offset_type)                                                                                      \
    ssize_t name(int fd, const void *data, size_t count, offset_type offset) {                                         \
        REAL(ssize_t, name, int, const void *, size_t, offset_type);                                                   \
        int half = 0;                                                                                                  \
        if (hit(&half)) return -1;                                                                                     \
        if (half) { real(fd, data, count / 2, offset); kill(getpid(), SIGKILL); }                                      \
        return real(fd, data, count, offset);                                                                          \
    }

WRITER(pwrite, off_t)
WRITER(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t count) {
    REAL(ssize_t, write, int, const void *, size_t);
    int half = 0;
    if (hit(&half)) return -1;
    if (half) { real(fd, data, count / 2); kill(getpid(), SIGKILL); }
    return real(fd, data, count);
}

#define PLAIN(type, name, declared, passed)                                                                            \
    type name declared {                                                                                               \
        static type(*real) declared;                                                                                   \
        if (!real) real = dlsym(RTLD_NEXT, #name);                                                                     \
        if (hit(0)) return -1;                                                                                         \
        return real passed;                                                                                            \
    }

PLAIN(int, fsync, (int fd), (fd))
PLAIN(int, fdatasync, (int fd), (fd))
PLAIN(int, ftruncate, (int fd, off_t size), (fd, size))
PLAIN(int, ftruncate64, (int fd, off64_t size), (fd, size))
PLAIN(int, unlink, (const char *path), (path))
PLAIN(int, rename, (const char *from, const char *to), (from, to))
PLAIN(int, fallocate, (int fd, int how, off_t offset, off_t size), (fd, how, offset, size))
