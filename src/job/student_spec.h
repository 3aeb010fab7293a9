// SPDX-License-Identifier: Apache-2.0
// The student that a job asks for, as the model floors know it.
#pragma once

#include "job/job.h"
#include "specification/model_spec.h"

namespace amalgam {

/// A student of `teacher` with the job's linear mixer where `layout` has it.
ModelSpec student_spec(const StudentJob& student, const ModelConfig& teacher, Layout layout);

/// The checkpoint that its linear layers start from (student.start); empty: none.
std::string start_of(const StudentJob& student);

}  // namespace amalgam
