// SPDX-License-Identifier: Apache-2.0
#include "storage/checksum.h"

#include <zlib.h>

#include <cstddef>

namespace amalgam {

uint32_t crc32_of(const void* data, int64_t bytes, uint32_t before) {
    return static_cast<uint32_t>(crc32_z(before, static_cast<const Bytef*>(data), static_cast<size_t>(bytes)));
}

uint32_t crc32_in_place(uint32_t part, int64_t bytes_after) {
    // The checksum of `part` followed by something, without that something's own contribution.
    return static_cast<uint32_t>(crc32_combine(part, 0, static_cast<z_off_t>(bytes_after)));
}

}  // namespace amalgam
