// SPDX-License-Identifier: Apache-2.0
// Transfer: the all-linear student with the teacher's weights in it.
#include "model/transfer.h"

#include "stages/stages.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

StageOutcome transfer(Run& run) {
    const ModelSpec spec = run.student_spec(all_linear(run.teacher_config().layers, run.job.student.mixer));
    const TensorSource& teacher = run.teacher_source();
    run.world.on_root([&] {
        const TransferSource source(teacher, spec.config, spec.linear,
                                    parse_expansion(run.job.student.key_value_expansion), uint64_t(run.job.seed));
        CausalLM student(spec, at::kCPU, at::kFloat, /*trainable=*/true);
        load_weights(student, {&source});
        write_checkpoint(run.checkpoints("transfer").finished(), student, nullptr, {"transfer", 0, 0, 0, run.job.seed},
                         run.provenance());
        info(text("transfer: ", describe(spec.layout), ", ", student.parameters().elements(), " parameters"));
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
