// SPDX-License-Identifier: Apache-2.0
// Transfer: the all-linear student with the teacher's weights in it. Spread over all ranks, so that no memory has to
// hold a whole model.
#include "model/transfer.h"

#include "checkpoints/checkpoint.h"
#include "checkpoints/checkpoint_writer.h"
#include "checkpoints/sharded_pieces.h"
#include "job/student_spec.h"
#include "sharding/node_weights.h"
#include "stages/stages.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {

StageOutcome transfer(Run& run) {
    const ModelSpec spec = run.student_spec(all_linear(run.teacher_config().layers, run.job.student.mixer));
    CausalLM student(spec, at::kCPU, at::kFloat, /*trainable=*/true, Allocation::later);
    ShardedModel shards(student, /*trainable=*/true, run.world, {.strategy = ShardingStrategy::full});
    const HuggingFaceSource& teacher = run.teacher_source();
    run.world.together([&] {  // of other nodes; the ranks of one node fail together
        const NodeSource on_node(teacher, run.node);
        const TransferSource source(on_node, spec, run.job.student.key_value_expansion, uint64_t(run.job.seed));
        const std::string start = start_of(run.job.student);
        if (start.empty()) return load_weights(shards, {&source});
        const Checkpoint trained(start);
        const ContinuedSource continued(source, spec, trained, trained.spec());
        load_weights(shards, {&continued});
        info(text("transfer: layers start from ", start));
    });
    CheckpointWriter writer(run.checkpoints("transfer").finished(),
                            {{"transfer", 0, 0, 0, run.job.seed}, spec, {}, run.provenance()},
                            weight_pieces(shards, true), run.world);
    writer.write();
    writer.finish();
    info(text("transfer: ", describe(spec.layout), ", ", student.parameters().elements(), " parameters"));
    return StageOutcome::finished;
}

}  // namespace amalgam
