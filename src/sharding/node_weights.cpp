// SPDX-License-Identifier: Apache-2.0
#include "sharding/node_weights.h"

#include <algorithm>

namespace amalgam {

const PosixFile& NodeSource::open(const std::filesystem::path& file) const {
    const auto found = files_.find(file);
    return found != files_.end() ? found->second : files_.emplace(file, PosixFile::open(file)).first->second;
}

void NodeSource::read(const SafetensorsEntry& entry, void* destination) const {
    constexpr int64_t most = int64_t{1} << 30;  // of one exchange
    for (int64_t first = 0; first < entry.bytes; first += most) {
        const std::span<char> piece(static_cast<char*>(destination) + first,
                                    size_t(std::min(most, entry.bytes - first)));
        const auto [start, count] = node_.part_of(piece.size());
        node_.together([&, start = start, count = count] {
            if (count > 0)
                open(entry.file).read_at(entry.offset + first + int64_t(start), piece.data() + start, int64_t(count));
        });
        bytes_read_ += int64_t(count);
        node_.exchange_parts(piece);
    }
}

}  // namespace amalgam
