// SPDX-License-Identifier: Apache-2.0
#include "storage/posix_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "system/error.h"

namespace amalgam {

PosixFile PosixFile::open(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        throw Error(text(path.string(), ": cannot be opened: ", std::strerror(errno), " (it is needed for reading)"),
                    ExitCode::bad_input);
    return PosixFile(path, descriptor);
}

PosixFile PosixFile::create(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0)
        throw Error(text(path.string(), ": cannot be created: ", std::strerror(errno)), ExitCode::storage);
    return PosixFile(path, descriptor);
}

PosixFile PosixFile::update(const std::filesystem::path& path) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor < 0)
        throw Error(text(path.string(), ": cannot be opened for writing: ", std::strerror(errno)), ExitCode::storage);
    return PosixFile(path, descriptor);
}

PosixFile::PosixFile(PosixFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

PosixFile::~PosixFile() {
    if (descriptor_ >= 0) ::close(descriptor_);
}

int64_t PosixFile::size() const {
    struct stat status {};
    if (fstat(descriptor_, &status) != 0)
        throw Error(text(path_.string(), ": its size cannot be read: ", std::strerror(errno)), ExitCode::damaged_file);
    return status.st_size;
}

void PosixFile::read_at(int64_t offset, void* destination, int64_t bytes) const {
    auto* target = static_cast<char*>(destination);
    while (bytes > 0) {
        const ssize_t count = pread(descriptor_, target, static_cast<size_t>(bytes), offset);
        if (count < 0 && errno == EINTR) continue;
        if (count < 0)
            throw Error(text(path_.string(), ": cannot be read at byte ", offset, ": ", std::strerror(errno)),
                        ExitCode::damaged_file);
        if (count == 0)
            throw Error(text(path_.string(), ": ends at byte ", offset, " but ", bytes,
                             " more are needed (the file is truncated); was it copied completely?"),
                        ExitCode::damaged_file);
        target += count;
        offset += count;
        bytes -= count;
    }
}

void PosixFile::write(const void* source, int64_t bytes) {
    write_all(source, bytes, [&](const char* rest, size_t left) { return ::write(descriptor_, rest, left); });
}

void PosixFile::write_at(int64_t offset, const void* source, int64_t bytes) {
    const int64_t end = offset + bytes;
    write_all(source, bytes, [&](const char* rest, size_t left) {
        return pwrite(descriptor_, rest, left, end - static_cast<int64_t>(left));
    });
}

void PosixFile::write_all(const void* source, int64_t bytes,
                          const std::function<int64_t(const char* rest, size_t left)>& write_some) {
    const auto* rest = static_cast<const char*>(source);
    while (bytes > 0) {
        const int64_t count = write_some(rest, static_cast<size_t>(bytes));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0)
            throw Error(
                text(path_.string(), ": cannot be written: ", count < 0 ? std::strerror(errno) : "no byte was accepted",
                     " (", bytes, " bytes were left); is the disk full or the quota used up?"),
                ExitCode::storage);
        rest += count;
        bytes -= count;
    }
}

void PosixFile::sync() {
    if (fsync(descriptor_) != 0)
        throw Error(text(path_.string(), ": cannot be synced to disk: ", std::strerror(errno),
                         "; is the disk full or the quota used up?"),
                    ExitCode::storage);
}

void PosixFile::close() {
    if (::close(std::exchange(descriptor_, -1)) != 0)
        throw Error(text(path_.string(), ": cannot be closed: ", std::strerror(errno), " (its content may be lost)"),
                    ExitCode::storage);
}

}  // namespace amalgam
