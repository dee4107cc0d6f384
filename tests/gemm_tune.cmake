# The choices of product algorithms are integers and text: tested without a GPU library around them.
target_sources(test_kernels_gemm_tune PRIVATE ${CMAKE_SOURCE_DIR}/kernels/cuda/gemm_tune.cc)
# Once more with the activation's derivative inside the product.
add_test(NAME test_kernels_ops_linear_fused COMMAND test_kernels_ops_linear
         WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(test_kernels_ops_linear_fused PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 300
                     ENVIRONMENT "OMP_WAIT_POLICY=passive;SOULCHAT_FUSE=dgelu")
