// SPDX-License-Identifier: Apache-2.0
#include "storage/write_once.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <system_error>

#include "storage/posix_file.h"
#include "system/error.h"
#include "system/provenance.h"

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

/// What the temporaries of this host end in begins with this.
std::string host_part() {
    return text(".", host_name().substr(0, 32), ".");  // names of files may have 255 letters
}

}  // namespace

// Emptied first: a library that could not close the file would otherwise go on holding the space of a full disk.
void discard(const fs::path& temporary) {
    std::error_code ignored;
    fs::resize_file(temporary, 0, ignored);
    fs::remove(temporary, ignored);
}

fs::path temporary_for(const fs::path& path) {
    return path.string() + text(host_part(), getpid(), ".tmp");
}

void discard_left(const fs::path& path) {
    const std::string begin = path.filename().string() + host_part(), end = ".tmp";
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder_of(path), ignored)) {
        const std::string name = entry.path().filename().string();
        if (!name.starts_with(begin) || !name.ends_with(end)) continue;
        const std::string process = name.substr(begin.size(), name.size() - begin.size() - end.size());
        if (process.empty() || process.find_first_not_of("0123456789") != std::string::npos) continue;
        const bool there = kill(pid_t(std::atol(process.c_str())), 0) == 0 || errno != ESRCH;
        if (!there) discard(entry.path());
    }
}

void publish(const fs::path& temporary, const fs::path& path) {
    sync_to_disk(temporary, false, path);
    sync_to_disk(folder_of(temporary), true, path);
    if (std::rename(temporary.c_str(), path.c_str()) != 0)
        fail(path, "renamed from " + temporary.string(), std::strerror(errno));
    sync_to_disk(folder_of(path), true, path);
}

void write_once(const fs::path& path, const std::function<void(const fs::path&)>& write) {
    const fs::path temporary = temporary_for(path);
    discard_left(path);
    discard(temporary);  // of a process that had the same number
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
