// SPDX-License-Identifier: Apache-2.0
#include "system/printable.h"

#include <algorithm>

namespace amalgam {
namespace {

/// Bytes of the UTF-8 character at the beginning of `bytes`; 0: there is none.
size_t utf8_length(std::string_view bytes) {
    const auto first = static_cast<unsigned char>(bytes[0]);
    const size_t length = first < 0x80                     ? 1
                          : first >= 0xC2 && first <= 0xDF ? 2
                          : (first & 0xF0) == 0xE0         ? 3
                          : first >= 0xF0 && first <= 0xF4 ? 4
                                                           : 0;
    if (length == 0 || length > bytes.size()) return 0;
    for (size_t i = 1; i < length; ++i)
        if ((static_cast<unsigned char>(bytes[i]) & 0xC0) != 0x80) return 0;
    return length;
}

}  // namespace

std::string printable(std::string_view message) {
    std::string result;
    while (!message.empty()) {
        const auto first = static_cast<unsigned char>(message[0]);
        const bool is_control = (first < 0x20 && first != '\n' && first != '\t') || first == 0x7F;
        const size_t length = is_control ? 0 : utf8_length(message);
        if (length == 0) {
            constexpr const char* digits = "0123456789abcdef";
            result += {'\\', 'x', digits[first >> 4], digits[first & 15]};
        }
        result += message.substr(0, length);
        message.remove_prefix(std::max<size_t>(length, 1));
    }
    return result;
}

}  // namespace amalgam
