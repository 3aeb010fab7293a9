// SPDX-License-Identifier: Apache-2.0
// Files that appear whole or not at all: written under a temporary name in the same folder, closed, synced to disk,
// renamed, folder synced. An interrupted write leaves the old file intact and at most a `NAME.HOST.PROCESS.tmp`, a name
// that no other process uses.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

namespace amalgam {

/// `write` gets the temporary path, must create the file there and close it. Throws Error(storage) naming `path`.
void write_once(const std::filesystem::path& path, const std::function<void(const std::filesystem::path&)>& write);

/// Text file, written once.
void write_text_once(const std::filesystem::path& path, const std::string& content);

/// Syncs a closed file and its folder, then renames `temporary` to `path` and syncs the folder again.
void publish(const std::filesystem::path& temporary, const std::filesystem::path& path);

/// Where this process writes what is to become `path`.
std::filesystem::path temporary_for(const std::filesystem::path& path);

/// Removes temporaries of `path` that processes of this host left which are not there any more.
void discard_left(const std::filesystem::path& path);

/// Empties and removes a temporary file that is not wanted any more, if it is there.
void discard(const std::filesystem::path& temporary);

}  // namespace amalgam
