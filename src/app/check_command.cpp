// SPDX-License-Identifier: Apache-2.0
#include "app/check_command.h"

#include <iostream>

#include "app/check_machine.h"
#include "app/job_inputs.h"
#include "estimate/check_table.h"
#include "estimate/known_shapes.h"
#include "job/job_reader.h"
#include "stages/run_folder.h"
#include "system/error.h"

namespace amalgam {

void check_command(const std::string& job_file, const std::vector<std::string>& overrides,
                   const CheckOptions& options) {
    const Job job = read_job(job_file, overrides);
    const JobInputs inputs = look_at_inputs(job);
    Findings findings = check_job(job, options.ranks, inputs.teacher, inputs.counts);
    findings.problems.insert(findings.problems.end(), inputs.problems.begin(), inputs.problems.end());
    findings.notes.insert(findings.notes.end(), inputs.notes.begin(), inputs.notes.end());
    if (const RequestCounts& requests = inputs.requests; requests.size() > 0)
        findings.notes.push_back(text("evaluate.requests: each model judges ", requests.judged,
                                      " continuations and generates ", requests.generating, " answers of up to ",
                                      readable_count(requests.new_tokens),
                                      " tokens in all; evaluate is estimated with "
                                      "answers as long as they may be"));
    if (findings.problems.empty()) findings.problems = run_folder_problems(job);  // which looks at all the inputs
    const std::optional<ModelConfig> teacher =
        options.shape.empty() ? inputs.teacher : std::optional(find_shape(options.shape));
    const CheckedMachine checked = machine_for(job, options, teacher);
    findings.notes.insert(findings.notes.end(), checked.notes.begin(), checked.notes.end());
    const Machine& machine = checked.machine;
    std::optional<Estimate> estimate;
    if (teacher) estimate = estimate_job(job, *teacher, machine, inputs.requests);
    std::cout << print_check(job, findings, estimate, machine);
    const size_t problems = findings.problems.size();
    require(problems == 0, job_file, ": the job cannot run (", problems, problems == 1 ? " problem" : " problems",
            " above)");
}

}  // namespace amalgam
