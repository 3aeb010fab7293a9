// SPDX-License-Identifier: Apache-2.0
#include "specification/teacher_family.h"

#include "specification/families/llama.h"
#include "specification/families/qwen2.h"
#include "specification/families/qwen3.h"

namespace amalgam {

std::span<const TeacherFamily> teacher_families() {
    static constexpr TeacherFamily families[] = {llama_family, qwen2_family, qwen3_family};
    return families;
}

}  // namespace amalgam
