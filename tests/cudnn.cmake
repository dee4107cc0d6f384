# cuDNN attention without a GPU. The arithmetic of offsets and groups runs everywhere.
add_executable(cudnn_pack cudnn_pack_test.c ${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn_pack.cc)
set_target_properties(cudnn_pack PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(cudnn_pack PRIVATE soulchat_testing soulchat_kernels soulchat_options)
add_test(NAME cudnn_pack COMMAND cudnn_pack WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(cudnn_pack PROPERTIES TIMEOUT 60)
