/* A quota for one process: writes below QUOTA_FOLDER fail with EDQUOT after QUOTA_BYTES. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static long long written = 0;

static int exceeded(int fd, size_t bytes) {
  const char *folder = getenv("QUOTA_FOLDER"), *limit = getenv("QUOTA_BYTES");
  char link[64], path[PATH_MAX];
  if (!folder || !limit) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  if (strncmp(path, folder, strlen(folder))) return 0;
  if (__atomic_add_fetch(&written, bytes, __ATOMIC_SEQ_CST) <= atoll(limit)) return 0;
  errno = EDQUOT;
  return 1;
}

ssize_t write(int fd, const void *data, size_t bytes) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = dlsym(RTLD_NEXT, "write");
  return exceeded(fd, bytes) ? -1 : real(fd, data, bytes);
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t offset) {
  static ssize_t (*real)(int, const void *, size_t, off64_t);
  if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
  return exceeded(fd, bytes) ? -1 : real(fd, data, bytes, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  static ssize_t (*real)(int, const struct iovec *, int);
  size_t bytes = 0;
  for (int i = 0; i < count; i++) bytes += parts[i].iov_len;
  if (!real) real = dlsym(RTLD_NEXT, "writev");
  return exceeded(fd, bytes) ? -1 : real(fd, parts, count);
}
