# The CUDA backend's host code over a CUDA runtime of ours, whose streams run late; kernels are the
# emulator's, products those of the stand-in for cuBLASLt. softgpu/README.md says what that shows.
# The toolkit's headers are needed, nothing else of it. Programs find the library beside themselves,
# hence the folders.
find_path(SOULCHAT_CUDA_HEADERS cublasLt.h PATHS ${CUDAToolkit_INCLUDE_DIRS}
          /usr/local/cuda/include)
mark_as_advanced(SOULCHAT_CUDA_HEADERS)
if(NOT SOULCHAT_CUDA_HEADERS)
  add_test(NAME softgpu COMMAND sh -c "echo 'SKIP: no CUDA headers at configure time'; exit 77")
  set_tests_properties(softgpu PROPERTIES SKIP_RETURN_CODE 77)
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
target_compile_options(soulchat_softgpu PRIVATE $<$<BOOL:${SOULCHAT_NATIVE}>:-march=native>
                       -ffp-contract=off) # the emulator's bits
target_include_directories(soulchat_softgpu PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_include_directories(soulchat_softgpu SYSTEM PRIVATE ${SOULCHAT_CUDA_HEADERS})
set_target_properties(soulchat_softgpu PROPERTIES OUTPUT_NAME soulchat_cuda
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/softgpu/lib)
# The name that fake_nccl.c looks for.
target_link_options(soulchat_softgpu PRIVATE -Wl,-soname,libsoulchat_cuda.so)
# Beside it the emulator, to compare with.
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/softgpu/lib)
file(CREATE_LINK ${CMAKE_BINARY_DIR}/lib/libsoulchat_emu.so
     ${CMAKE_BINARY_DIR}/softgpu/lib/libsoulchat_emu.so SYMBOLIC)

set(soft_environment OMP_WAIT_POLICY=passive SOULCHAT_NCCL=$<TARGET_FILE:fake_nccl>
                     SOULCHAT_TUNE=${CMAKE_BINARY_DIR}/softgpu/gemm.tune)

# soft_test(NAME FILE LAYER links...): a test on this GPU, with work as late as it can be (seed 0)
# and with some of it earlier.
set(soft_seeds 0 1)
function(soft_test name file layer)
  add_executable(${name} ${file})
  set_target_properties(${name} PROPERTIES LINKER_LANGUAGE CXX
                        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/softgpu/tests)
  target_link_libraries(${name} PRIVATE soulchat_testing soulchat_${layer} ${ARGN} soulchat_options)
  add_dependencies(${name} soulchat_softgpu fake_nccl)
  foreach(seed ${soft_seeds})
    add_test(NAME ${name}_${seed} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name}_${seed} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 ENVIRONMENT
      "${soft_environment};SOFTGPU_SEED=${seed}")
  endforeach()
endfunction()
soft_test(softgpu_host softgpu/host_test.c kernels)
soft_test(softgpu_dev test_kernels_dev_gpu.c kernels)
soft_test(softgpu_comm test_train_comm_gpu.c train soulchat_ranks_fixture)
target_compile_definitions(softgpu_comm PRIVATE FAKE_NCCL="$<TARGET_FILE:fake_nccl>")
set_property(TEST softgpu_comm_0 softgpu_comm_1 APPEND PROPERTY ENVIRONMENT SOFTGPU_DEVICES=4
             SOULCHAT_TEST_GPUS=4)
set(soft_seeds 0)
soft_test(softgpu_linear test_kernels_ops_linear.c kernels soulchat_ops_testing)
set_property(TEST softgpu_linear_0 APPEND PROPERTY ENVIRONMENT SOULCHAT_TEST_DEVICES=cuda)

# The program, over the bundled sample.
add_custom_target(softgpu_program ALL
  COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/softgpu/bin
  COMMAND ${CMAKE_COMMAND} -E copy_if_different $<TARGET_FILE:soulchat>
          ${CMAKE_BINARY_DIR}/softgpu/bin
  DEPENDS soulchat soulchat_softgpu)
if(SOULCHAT_WITH_HDF5)
  add_test(NAME e2e_softgpu COMMAND bash tests/e2e/softgpu.sh WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(e2e_softgpu PROPERTIES TIMEOUT 1200 SKIP_RETURN_CODE 77 ENVIRONMENT
    "${soft_environment};SOFTGPU_DEVICES=2;SOULCHAT=${CMAKE_BINARY_DIR}/softgpu/bin/soulchat")
endif()
