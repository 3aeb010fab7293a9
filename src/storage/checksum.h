// SPDX-License-Identifier: Apache-2.0
// CRC-32 (that of zlib, PNG and zip: `zlib.crc32` in Python) of bytes that several processes hold parts of. Being
// linear, the checksum of the whole is the exclusive or of its parts', each moved to its place; neither the order nor
// the number of parts matters.
#pragma once

#include <cstdint>

namespace amalgam {

/// Of `bytes` bytes that follow those `before` is the checksum of.
uint32_t crc32_of(const void* data, int64_t bytes, uint32_t before = 0);

/// What a part contributes to the whole's checksum if `bytes_after` bytes follow it there.
uint32_t crc32_in_place(uint32_t part, int64_t bytes_after);

}  // namespace amalgam
