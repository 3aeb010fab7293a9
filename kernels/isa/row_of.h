// SPDX-License-Identifier: Apache-2.0
// The elements of a row of tokens.
#pragma once

#include "kernels/rows.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// Element `offset` of row `token`.
template <class T>
inline const T* row_of(const ConstRows& rows, std::int64_t token, std::int64_t offset = 0) {
    return static_cast<const T*>(rows.data) + token * rows.stride + offset;
}

template <class T>
inline T* row_of(const Rows& rows, std::int64_t token, std::int64_t offset = 0) {
    return static_cast<T*>(rows.data) + token * rows.stride + offset;
}

}  // namespace amalgam::kernels::AMALGAM_ISA
