/* Preloaded into a program: the n-th write to one of its files fails, and so do all later ones.
 *   FAIL_PATH  how the path of the files that count ends, FAIL_AT  n, FAIL_ERRNO  the reason, FAIL_RANK  rank it happens to
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int writes;

static int fails(int file) {
  const char *part = getenv("FAIL_PATH"), *at = getenv("FAIL_AT"), *rank = getenv("FAIL_RANK");
  const char* here = getenv("OMPI_COMM_WORLD_RANK");
  if (!part || !at || (rank && strcmp(rank, here ? here : "0") != 0)) return 0;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t n = readlink(link, path, sizeof path - 1);
  if (n <= 0) return 0;
  path[n] = 0;
  const size_t length = strlen(part);
  if ((size_t)n < length || strcmp(path + n - length, part) != 0) return 0;
  if (atomic_fetch_add(&writes, 1) + 1 < atoi(at)) return 0;
  const char* reason = getenv("FAIL_ERRNO");
  errno = reason ? atoi(reason) : EIO;
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int file, const void* bytes, size_t n) { return fails(file) ? -1 : REAL(write)(file, bytes, n); }
ssize_t pwrite(int file, const void* bytes, size_t n, off_t at) {
  return fails(file) ? -1 : REAL(pwrite)(file, bytes, n, at);
}
ssize_t pwrite64(int file, const void* bytes, size_t n, off64_t at) {
  return fails(file) ? -1 : REAL(pwrite64)(file, bytes, n, at);
}
ssize_t writev(int file, const struct iovec* parts, int n) { return fails(file) ? -1 : REAL(writev)(file, parts, n); }
ssize_t pwritev(int file, const struct iovec* parts, int n, off_t at) {
  return fails(file) ? -1 : REAL(pwritev)(file, parts, n, at);
}
ssize_t pwritev64(int file, const struct iovec* parts, int n, off64_t at) {
  return fails(file) ? -1 : REAL(pwritev64)(file, parts, n, at);
}
int fsync(int file) { return fails(file) ? -1 : REAL(fsync)(file); }
