// SPDX-License-Identifier: Apache-2.0
// A file descriptor that closes itself, with reads and writes that go on after short transfers and interruptions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>

namespace amalgam {

class PosixFile {
  public:
    /// An existing file to read. Throws Error(bad_input) if it cannot be opened.
    static PosixFile open(const std::filesystem::path& path);
    /// A new, empty file to write; an old one of that name is emptied. Throws Error(storage).
    static PosixFile create(const std::filesystem::path& path);
    /// An existing file to write into. Throws Error(storage).
    static PosixFile update(const std::filesystem::path& path);

    PosixFile(PosixFile&& other) noexcept;
    PosixFile& operator=(PosixFile&&) = delete;
    ~PosixFile();

    int64_t size() const;  // bytes

    /// Exactly `bytes` bytes from `offset`. Throws Error(damaged_file) if the file ends before.
    void read_at(int64_t offset, void* destination, int64_t bytes) const;
    /// Appends all of `bytes` bytes. Throws Error(storage), e.g. when the disk is full.
    void write(const void* source, int64_t bytes);
    /// All of `bytes` bytes from `offset` on. Throws Error(storage).
    void write_at(int64_t offset, const void* source, int64_t bytes);
    /// Waits until what was written is on the disk. Throws Error(storage).
    void sync();
    /// Closes a written file; some file systems report a full disk only here. Throws Error(storage).
    void close();

  private:
    PosixFile(std::filesystem::path path, int descriptor) : path_(std::move(path)), descriptor_(descriptor) {}
    void write_all(const void* source, int64_t bytes,
                   const std::function<int64_t(const char* rest, size_t left)>& write_some);
    std::filesystem::path path_;
    int descriptor_ = -1;
};

}  // namespace amalgam
