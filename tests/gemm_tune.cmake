# The choices of product algorithms are integers and text: tested without a GPU library around them.
target_sources(test_kernels_gemm_tune PRIVATE ${CMAKE_SOURCE_DIR}/kernels/cuda/gemm_tune.cc)
# Once more with the activation's derivative inside the product.
add_test(NAME test_kernels_ops_linear_fused COMMAND test_kernels_ops_linear
         WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(test_kernels_ops_linear_fused PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900
                     ENVIRONMENT "OMP_WAIT_POLICY=passive;SOULCHAT_FUSE=dgelu")

# The cuBLASLt half of the product seam without a GPU: the emulator's library once more, with
# gemm_lt.cc and a stand-in for cuBLASLt (fake_cublaslt.cc) where it has loops of its own. The
# toolkit's headers are needed, so this comes with the CUDA build. Programs find the library beside
# themselves, hence the folders.
if(SOULCHAT_CUDA)
  set(lt_sources ${emu_sources})
  list(FILTER lt_sources EXCLUDE REGEX "/gemm_emu\\.cc$")
  soulchat_backend(emu_lt ${emu_kernels} ${cuda_common} ${lt_sources}
                   ${CMAKE_SOURCE_DIR}/kernels/cuda/gemm_lt.cc fake_cublaslt.cc)
  target_compile_definitions(soulchat_emu_lt PRIVATE SOULCHAT_EMU WORKSPACE_BYTES=65536
                             PIECE_BYTES=16384)
  target_include_directories(soulchat_emu_lt PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
  target_include_directories(soulchat_emu_lt SYSTEM PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  set_target_properties(soulchat_emu_lt PROPERTIES OUTPUT_NAME soulchat_emu
                        LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fake_lt/lib)
  soulchat_test(test_gemm_lt kernels)
  soulchat_test(test_gemm_lt_train train soulchat_train_fixture)
  foreach(name test_kernels_ops_linear test_kernels_ops_loss)
    add_executable(${name}_lt ${name}.c)
    set_target_properties(${name}_lt PROPERTIES LINKER_LANGUAGE CXX)
    target_link_libraries(${name}_lt PRIVATE soulchat_testing soulchat_kernels
                          soulchat_ops_testing soulchat_options)
    add_test(NAME ${name}_lt COMMAND ${name}_lt WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name}_lt PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 ENVIRONMENT
      "OMP_WAIT_POLICY=passive;SOULCHAT_FUSE=dgelu;SOULCHAT_TUNE=off")
  endforeach()
  set_target_properties(test_gemm_lt test_gemm_lt_train test_kernels_ops_linear_lt
    test_kernels_ops_loss_lt PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fake_lt/tests)
endif()
