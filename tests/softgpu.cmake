# The CUDA backend's host code over a CUDA runtime of ours, whose streams run late; kernels are the
# emulator's, products those of the stand-in for cuBLASLt. softgpu/README.md says what that shows.
# The toolkit's headers are needed. Programs find the library beside themselves, hence the folders.
if(NOT SOULCHAT_CUDA)
  return()
endif()
set(soft_sources ${emu_sources})
list(FILTER soft_sources EXCLUDE REGEX "/(gemm|gpu|launch)_emu\\.cc$")
soulchat_backend(softgpu ${emu_kernels} ${cuda_common} ${soft_sources}
                 ${CMAKE_SOURCE_DIR}/kernels/cuda/gemm_lt.cc
                 ${CMAKE_SOURCE_DIR}/kernels/cuda/gpu_cuda.cc fake_cublaslt.cc
                 softgpu/launch_emulated.cc softgpu/queues.cc softgpu/runtime.cc)
target_compile_definitions(soulchat_softgpu PRIVATE SOULCHAT_EMU FAKE_CUBLASLT_LATE
                           WORKSPACE_BYTES=65536 PIECE_BYTES=16384)
target_include_directories(soulchat_softgpu PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_include_directories(soulchat_softgpu SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
set_target_properties(soulchat_softgpu PROPERTIES OUTPUT_NAME soulchat_cuda
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/softgpu/lib)
# The name that fake_nccl.c looks for.
target_link_options(soulchat_softgpu PRIVATE -Wl,-soname,libsoulchat_cuda.so)
file(CREATE_LINK ${CMAKE_BINARY_DIR}/lib/libsoulchat_emu.so
     ${CMAKE_BINARY_DIR}/softgpu/lib/libsoulchat_emu.so SYMBOLIC)

# soft_test(NAME FILE LAYER links...): a test on this GPU, with work as late as it can be and with
# some of it earlier.
function(soft_test name file layer)
  add_executable(${name} ${file})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX
                        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/softgpu/tests)
  target_link_libraries(${name} PRIVATE soulchat_testing soulchat_${layer} ${ARGN} soulchat_options)
  add_dependencies(${name} soulchat_softgpu)
  foreach(seed 0 1)
    add_test(NAME ${name}_${seed} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name}_${seed} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300 ENVIRONMENT
      "OMP_WAIT_POLICY=passive;SOULCHAT_TUNE=off;SOFTGPU_SEED=${seed}")
  endforeach()
endfunction()
soft_test(softgpu_host softgpu/host_test.c kernels)
soft_test(softgpu_dev test_kernels_dev_gpu.c kernels)
