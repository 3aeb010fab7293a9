// SPDX-License-Identifier: Apache-2.0
#include "storage/content_digest.h"

#include <algorithm>
#include <vector>

#include "storage/checksum.h"
#include "storage/posix_file.h"
#include "system/error.h"
#include "system/sha256.h"

namespace amalgam {
namespace {

constexpr int64_t header_bytes = 1 << 20, block_bytes = 1 << 15, blocks = 512;

}  // namespace

std::string content_digest(const std::filesystem::path& path, int64_t whole_up_to) {
    const PosixFile file = PosixFile::open(path);
    const int64_t size = file.size();
    std::vector<char> buffer(static_cast<size_t>(header_bytes));
    std::string seen = text(size, " bytes");
    const auto look = [&](int64_t first, int64_t count) {  // a checksum of each MiB, then one digest of them all
        for (const int64_t end = std::min(size, first + count); first < end;) {
            const int64_t part = std::min(header_bytes, end - first);
            file.read_at(first, buffer.data(), part);
            seen += text(" ", crc32_of(buffer.data(), part));
            first += part;
        }
    };
    if (size <= whole_up_to) {
        look(0, size);
    } else {
        look(0, header_bytes);
        for (int64_t block = 1; block < blocks; ++block) look(size / blocks * block, block_bytes);
        look(std::max<int64_t>(0, size - block_bytes), block_bytes);
    }
    return sha256(seen);
}

}  // namespace amalgam
