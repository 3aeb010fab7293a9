// SPDX-License-Identifier: Apache-2.0
#include "storage/write_once.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "storage/posix_file.h"
#include "system/error.h"

namespace amalgam {

namespace fs = std::filesystem;

namespace {

[[noreturn]] void fail(const fs::path& path, const std::string& step, const std::string& reason) {
    throw Error(text(path.string(), ": cannot be ", step, ": ", reason), ExitCode::storage);
}

/// Brings a closed file, or the entries of a folder, to the disk.
void sync_to_disk(const fs::path& what, bool is_folder, const fs::path& path) {
    const int descriptor = ::open(what.c_str(), O_RDONLY | O_CLOEXEC | (is_folder ? O_DIRECTORY : 0));
    if (descriptor < 0) fail(path, "synced to disk", text(what.string(), ": ", std::strerror(errno)));
    const int failed = fsync(descriptor);
    const int code = errno;
    ::close(descriptor);
    // Some network file systems cannot sync a folder; their renames are as durable as they will ever be.
    if (failed && !(is_folder && (code == EINVAL || code == ENOTSUP)))
        fail(path, "synced to disk", text(what.string(), ": ", std::strerror(code)));
}

fs::path folder_of(const fs::path& path) {
    return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

}  // namespace

// Emptied first: a library that could not close the file would otherwise go on holding the space of a full disk.
void discard(const fs::path& temporary) {
    std::error_code ignored;
    fs::resize_file(temporary, 0, ignored);
    fs::remove(temporary, ignored);
}

void publish(const fs::path& temporary, const fs::path& path) {
    sync_to_disk(temporary, false, path);
    sync_to_disk(folder_of(temporary), true, path);
    if (std::rename(temporary.c_str(), path.c_str()) != 0)
        fail(path, "renamed from " + temporary.string(), std::strerror(errno));
    sync_to_disk(folder_of(path), true, path);
}

void write_once(const fs::path& path, const std::function<void(const fs::path&)>& write) {
    const fs::path temporary = path.string() + ".tmp";
    discard(temporary);  // of an interrupted run
    try {
        write(temporary);
        publish(temporary, path);
    } catch (const std::system_error& error) {  // of std::filesystem and of streams
        discard(temporary);
        fail(path, "written", error.what());
    } catch (...) {
        discard(temporary);
        throw;
    }
}

void write_text_once(const fs::path& path, const std::string& content) {
    write_once(path, [&](const fs::path& temporary) {
        PosixFile file = PosixFile::create(temporary);
        file.write(content.data(), static_cast<int64_t>(content.size()));
        file.close();
    });
}

}  // namespace amalgam
