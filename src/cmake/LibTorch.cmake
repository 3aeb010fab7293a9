# SPDX-License-Identifier: Apache-2.0
# Target amalgam::torch. TorchConfig.cmake of the CUDA wheels asks for a CUDA toolkit even where only the CPU part is
# wanted, so the CPU preset links libtorch_cpu and libc10 by path; the CUDA preset adds libtorch_cuda and libc10_cuda.
if(NOT AMALGAM_TORCH)
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  execute_process(COMMAND ${Python3_EXECUTABLE} -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
                  OUTPUT_VARIABLE AMALGAM_TORCH OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE status ERROR_QUIET)
  if(status)
    message(FATAL_ERROR "LibTorch not found: `${Python3_EXECUTABLE} -c 'import torch'` fails. Install the torch package or give -DAMALGAM_TORCH=FOLDER.")
  endif()
endif()
if(NOT EXISTS ${AMALGAM_TORCH}/include/ATen/ATen.h)
  message(FATAL_ERROR "AMALGAM_TORCH=${AMALGAM_TORCH} holds no include/ATen/ATen.h (not a LibTorch folder).")
endif()
message(STATUS "LibTorch: ${AMALGAM_TORCH}")

# The wheels keep the libraries that LibTorch needs (CUDA runtime, CUPTI, NCCL, cuDNN...) in sibling packages.
file(GLOB wheel_library_folders ${AMALGAM_TORCH}/../nvidia/*/lib)

add_library(amalgam_torch INTERFACE)
add_library(amalgam::torch ALIAS amalgam_torch)
target_include_directories(amalgam_torch SYSTEM INTERFACE ${AMALGAM_TORCH}/include ${AMALGAM_TORCH}/include/torch/csrc/api/include)
target_link_libraries(amalgam_torch INTERFACE ${AMALGAM_TORCH}/lib/libtorch_cpu.so ${AMALGAM_TORCH}/lib/libc10.so)
target_link_options(amalgam_torch INTERFACE "LINKER:-rpath,${AMALGAM_TORCH}/lib")
foreach(folder ${wheel_library_folders})
  get_filename_component(folder ${folder} ABSOLUTE)
  target_link_options(amalgam_torch INTERFACE "LINKER:-rpath,${folder}" "LINKER:-rpath-link,${folder}")
endforeach()

if(AMALGAM_CUDA)
  find_package(CUDAToolkit REQUIRED)
  file(GLOB nccl_libraries ${AMALGAM_TORCH}/../nvidia/nccl/lib/libnccl.so.2)
  if(nccl_libraries)
    # The NCCL that LibTorch itself loads: two of them in one process is trouble. The wheel has no unversioned name.
    set(nccl_include ${AMALGAM_TORCH}/../nvidia/nccl/include)
  else()
    find_library(nccl_libraries nccl REQUIRED)
    find_path(nccl_include nccl.h REQUIRED)
  endif()
  target_compile_definitions(amalgam_torch INTERFACE AMALGAM_CUDA)
  target_include_directories(amalgam_torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS} ${nccl_include})
  # Nothing here calls into libtorch_cuda directly; without --no-as-needed it would not be loaded and no GPU be seen.
  target_link_libraries(amalgam_torch INTERFACE "-Wl,--no-as-needed" ${AMALGAM_TORCH}/lib/libtorch_cuda.so
    ${AMALGAM_TORCH}/lib/libc10_cuda.so "-Wl,--as-needed" ${nccl_libraries} CUDA::cudart)
endif()
