// SPDX-License-Identifier: Apache-2.0
#include "app/any_model.h"

#include <ATen/ATen.h>

#include "exports/export.h"
#include "model/weights.h"
#include "stages/compute.h"
#include "system/error.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

/// Students are read from their checkpoints, which hold them in full precision, and with all options of their mixers.
void expect_no_student(const fs::path& folder) {
    if (!is_export(folder)) return;
    const fs::path parent = fs::absolute(folder / "").parent_path().parent_path(), checkpoints = parent / "checkpoints";
    fs::path newest = fs::path("checkpoints") / "distill.h5";
    for (const char* name : {"distill.h5", "finetune.h5"})
        if (std::error_code unreadable; fs::exists(checkpoints / name, unreadable)) newest = checkpoints / name;
    throw Error(text(folder.string(),
                     ": is an exported student (this program reads folders of teachers, and students "
                     "from their checkpoints); name its checkpoint, ",
                     newest.string()),
                ExitCode::bad_input);
}

}  // namespace

Checkpoint open_checkpoint(const std::string& path) {
    std::error_code unreadable;
    require(!fs::is_directory(path, unreadable), path,
            ": is a folder (a checkpoint is needed); name a file of a run's checkpoints/");
    std::string found;
    {
        const H5File file = H5File::open(path);
        if (file.has_attribute("/", "filetype")) found = file.string_attribute("/", "filetype");
    }
    require(found.empty() || found == "amalgam checkpoint", path, ": is a file of type \"", found,
            "\" (a checkpoint is needed); name a file of a run's checkpoints/");
    return Checkpoint(path);
}

std::unique_ptr<CausalLM> load_any_model(const std::string& path, const std::string& device,
                                         const std::string& precision) {
    const bool cuda = asks_for_cuda("--device", value_named<DeviceChoice>("--device", device));
    const at::Device chosen = cuda ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
    const at::ScalarType type = compute_type(value_named<ComputePrecision>("--precision", precision), cuda);
    set_product_precision(type);
    if (fs::is_directory(path)) {
        expect_no_student(path);
        return load_teacher(path, chosen, type);
    }
    const Checkpoint checkpoint = open_checkpoint(path);
    auto model = std::make_unique<CausalLM>(checkpoint.spec(), chosen, type, /*trainable=*/false);
    load_weights(*model, {&checkpoint});
    return model;
}

}  // namespace amalgam
