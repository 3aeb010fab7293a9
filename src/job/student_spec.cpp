// SPDX-License-Identifier: Apache-2.0
#include "job/student_spec.h"

namespace amalgam {

ModelSpec student_spec(const StudentJob& student, const ModelConfig& teacher, Layout layout) {
    const bool as_reference = student.output_norm_eps == OutputNormEps::reference;
    return {teacher, std::move(layout), student.options, as_reference ? 1e-5 : teacher.rms_norm_eps};
}

std::string start_of(const StudentJob& student) {
    std::string path;  // not every mixer can start so
    read_option(student.options, "start", path);
    return path;
}

}  // namespace amalgam
