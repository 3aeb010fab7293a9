// SPDX-License-Identifier: Apache-2.0
// Job to YAML: the resolved job that every result file carries, and the commented default job file.
#pragma once

#include <string>

#include "job/job.h"
#include "system/provenance.h"

namespace amalgam {

struct JobKey;

/// Every key with its value; reading it back gives an equal Job, whatever recipe and variant are.
std::string to_yaml(const Job& job);

/// The value of one key, as to_yaml writes it; its default where the job has no such key.
std::string yaml_value(Job job, const JobKey& key);

/// What result files of this job say of where they come from: what is known now, and the job.
Provenance provenance_of(const Job& job);

/// What `amalgam defaults` prints: every key with its default; unit, meaning and allowed values as comments.
std::string commented_defaults();

}  // namespace amalgam
