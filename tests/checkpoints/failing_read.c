/* Preloaded, it makes every read of the file named by EIO_FILE fail with EIO, and of that named by STALLED_FILE stall. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is(int fd, const char *variable) {
  const char *wanted = getenv(variable);
  char link[64], path[4096];
  if (!wanted) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return strcmp(path, wanted) == 0;
}

#define INTERPOSE(name, parameters, arguments)          \
  ssize_t name parameters {                             \
    static ssize_t(*real) parameters;                   \
    if (!real) real = dlsym(RTLD_NEXT, #name);          \
    while (is(fd, "STALLED_FILE")) sleep(1);            \
    if (is(fd, "EIO_FILE")) return errno = EIO, -1;     \
    return real arguments;                              \
  }

INTERPOSE(read, (int fd, void *to, size_t count), (fd, to, count))
INTERPOSE(pread, (int fd, void *to, size_t count, off_t at), (fd, to, count, at))
INTERPOSE(pread64, (int fd, void *to, size_t count, off64_t at), (fd, to, count, at))
