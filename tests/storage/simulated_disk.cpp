// SPDX-License-Identifier: Apache-2.0
// A small disk without the privilege to mount one. These calls take the place of the C library's: below the folder
// AMALGAM_SIMULATED_DISK they fail with ENOSPC when its files would hold more than AMALGAM_SIMULATED_DISK_BYTES (after
// having written what still fits, as a true disk does), and with EROFS where it is read-only.
#include "simulated_disk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>

namespace {

using namespace amalgam::test;

/// Empty: no disk is simulated.
std::string disk_folder() {
    const char* folder = getenv(disk_folder_variable);
    return folder ? folder : "";
}

bool is_on_disk(const std::string& path) {
    const std::string folder = disk_folder();
    return !folder.empty() && path.starts_with(folder + "/");
}

/// May `path` be changed? Sets errno if not. What is not there is not found, on a read-only disk too.
bool may_change(const char* path, bool makes_it = false) {
    if (getenv(disk_read_only_variable) == nullptr || !is_on_disk(path)) return true;
    if (!makes_it && faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0) return true;
    errno = EROFS;
    return false;
}

/// How many of `bytes` bytes at `offset` (-1: at the descriptor's own position) the disk takes. None: errno is set.
size_t accepted(int descriptor, size_t bytes, int64_t offset) {
    const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
    if (bytes == 0 || disk_folder().empty()) return bytes;
    char target[4096];
    const ssize_t length = readlink(link.c_str(), target, sizeof target);
    if (length <= 0 || !is_on_disk(std::string(target, size_t(length)))) return bytes;
    if (offset < 0) {
        const bool appends = (fcntl(descriptor, F_GETFL) & O_APPEND) != 0;
        struct stat status {};
        fstat(descriptor, &status);
        offset = appends ? int64_t(status.st_size) : lseek(descriptor, 0, SEEK_CUR);
    }
    const int64_t free = std::max<int64_t>(0, atoll(getenv(disk_bytes_variable)) - stored_bytes_below(disk_folder()));
    const int64_t fresh = int64_t(bytes) - stored_bytes(link.c_str(), offset, offset + int64_t(bytes));
    if (fresh <= free) return bytes;
    const int64_t fits = int64_t(bytes) - (fresh - free);
    if (fits <= 0) errno = ENOSPC;
    return size_t(std::max<int64_t>(0, fits));
}

int open_file(int folder, const char* path, int flags, mode_t mode) {
    const bool creates = (flags & O_CREAT) != 0;
    const bool writes = creates || (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
    if (writes && !may_change(path, creates)) return -1;
    return int(syscall(SYS_openat, folder, path, flags, mode));
}

}  // namespace

extern "C" {

ssize_t write(int descriptor, const void* buffer, size_t bytes) {
    const size_t taken = accepted(descriptor, bytes, -1);
    return taken == 0 && bytes > 0 ? -1 : syscall(SYS_write, descriptor, buffer, taken);
}

ssize_t pwrite(int descriptor, const void* buffer, size_t bytes, off_t offset) {
    const size_t taken = accepted(descriptor, bytes, offset);
    return taken == 0 && bytes > 0 ? -1 : syscall(SYS_pwrite64, descriptor, buffer, taken, offset);
}

ssize_t pwrite64(int descriptor, const void* buffer, size_t bytes, off64_t offset) {
    return pwrite(descriptor, buffer, bytes, offset);
}

/// Reserves nothing: what was promised is counted when it is written.
int fallocate(int descriptor, int, off_t offset, off_t bytes) {
    if (accepted(descriptor, size_t(bytes), offset) == size_t(bytes)) return 0;
    errno = ENOSPC;
    return -1;
}

int fallocate64(int descriptor, int mode, off64_t offset, off64_t bytes) {
    return fallocate(descriptor, mode, offset, bytes);
}

/// All or nothing: only logs are written so.
ssize_t writev(int descriptor, const struct iovec* parts, int count) {
    size_t bytes = 0;
    for (int i = 0; i < count; ++i) bytes += parts[i].iov_len;
    if (accepted(descriptor, bytes, -1) < bytes) {
        errno = ENOSPC;
        return -1;
    }
    return syscall(SYS_writev, descriptor, parts, count);
}

int open(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_file(AT_FDCWD, path, flags, mode);
}

int open64(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open_file(AT_FDCWD, path, flags, mode);
}

int mkdir(const char* path, mode_t mode) {
    return may_change(path, true) ? int(syscall(SYS_mkdirat, AT_FDCWD, path, mode)) : -1;
}

int rename(const char* from, const char* to) {
    return may_change(from) && may_change(to, true) ? int(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0)) : -1;
}

int unlink(const char* path) {
    return may_change(path) ? int(syscall(SYS_unlinkat, AT_FDCWD, path, 0)) : -1;
}

int remove(const char* path) {
    if (!may_change(path)) return -1;
    if (syscall(SYS_unlinkat, AT_FDCWD, path, 0) == 0) return 0;
    return errno == EISDIR || errno == EPERM ? int(syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR)) : -1;
}

int truncate(const char* path, off_t bytes) {
    return may_change(path) ? int(syscall(SYS_truncate, path, bytes)) : -1;
}

int link(const char* from, const char* to) {
    return may_change(to, true) ? int(syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)) : -1;
}

}  // extern "C"
