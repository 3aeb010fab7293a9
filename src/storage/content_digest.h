// SPDX-License-Identifier: Apache-2.0
// A digest by which a file is known again, wherever it was copied to and whenever: of its size and content.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace amalgam {

/// Files up to this size are digested whole; of larger ones the beginning (where headers are), the end, and blocks of
/// 32 KiB at 512 equal distances, so that it takes a moment at any size.
inline constexpr int64_t whole_digest_bytes = int64_t{256} << 20;

/// 64 hexadecimal digits. `whole_up_to`: instead of whole_digest_bytes. Throws Error(bad_input, damaged_file).
std::string content_digest(const std::filesystem::path& file, int64_t whole_up_to = whole_digest_bytes);

}  // namespace amalgam
