# cuDNN attention without a GPU. The arithmetic of offsets and groups runs everywhere.
add_executable(cudnn_pack cudnn_pack_test.c ${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn_pack.cc)
set_target_properties(cudnn_pack PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_link_libraries(cudnn_pack PRIVATE soulchat_testing soulchat_kernels soulchat_options)
add_test(NAME cudnn_pack COMMAND cudnn_pack WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(cudnn_pack PROPERTIES TIMEOUT 300)

# What follows needs cuDNN's headers, and one test of them the library.
include(${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn.cmake)
if(NOT SOULCHAT_CUDNN_FOUND)
  foreach(name cudnn_plans cudnn_attn)
    add_test(NAME ${name} COMMAND sh -c "echo 'SKIP: no cuDNN headers at configure time'; exit 77")
    set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77)
  endforeach()
  return()
endif()
find_library(SOULCHAT_CUDNN_LIBRARY NAMES libcudnn.so.9 PATHS /usr/local/cuda/lib
             ENV CUDNN_PATH PATH_SUFFIXES lib lib64)
mark_as_advanced(SOULCHAT_CUDNN_LIBRARY)

function(cudnn_test name)
  add_executable(${name} ${ARGN})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_include_directories(${name} SYSTEM PRIVATE ${SOULCHAT_CUDNN_INCLUDE_DIRS})
  target_compile_options(${name} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers -Wno-unknown-pragmas>)
  target_link_libraries(${name} PRIVATE soulchat_testing soulchat_kernels soulchat_options)
endfunction()

set(cudnn_graph_sources
    ${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn_lib.cc ${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn_graph.cc
    ${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn_sdpa.cc ${CMAKE_SOURCE_DIR}/kernels/cuda/cudnn_pack.cc)
cudnn_test(cudnn_plans cudnn_plans_test.cc ${cudnn_graph_sources})
# Linked though nothing of it is called: cuDNN then finds it loaded when it looks for a driver.
target_link_options(cudnn_plans PRIVATE -Wl,--no-as-needed)
target_link_libraries(cudnn_plans PRIVATE refusing_driver)
add_test(NAME cudnn_plans
         COMMAND cudnn_plans ${SOULCHAT_CUDNN_LIBRARY} ${CMAKE_CURRENT_SOURCE_DIR}/cudnn_h200.json)
# cuDNN keeps memory of its own until the end; that nothing of ours is left, cudnn_attn shows.
set_tests_properties(cudnn_plans PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 1200
                     ENVIRONMENT ASAN_OPTIONS=detect_leaks=0)

# The whole operator, with a library that computes what the graphs say, on host memory.
add_library(cudnn_pretend MODULE cudnn_pretend.cc)
set_target_properties(cudnn_pretend PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(cudnn_pretend SYSTEM PRIVATE ${SOULCHAT_CUDNN_INCLUDE_DIRS})
target_include_directories(cudnn_pretend PRIVATE
  $<TARGET_PROPERTY:soulchat_kernels,INTERFACE_INCLUDE_DIRECTORIES>
  $<TARGET_PROPERTY:soulchat_base,INTERFACE_INCLUDE_DIRECTORIES>)
target_compile_options(cudnn_pretend PRIVATE -O2)
target_link_libraries(cudnn_pretend PRIVATE soulchat_options)

# The cuBLASLt of the CUDA that this library says it is made for; only that it is there counts.
add_library(cudnn_companion SHARED cudnn_companion.c)
set_target_properties(cudnn_companion PROPERTIES OUTPUT_NAME cublasLt SOVERSION 99
                      LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/cudnn_companion)
target_link_libraries(cudnn_companion PRIVATE soulchat_options)

set(attn_cudnn_kernels ${CMAKE_BINARY_DIR}/emu/attn_cudnn_kernels.cc) # by kernels/backends.cmake
set_source_files_properties(${attn_cudnn_kernels} PROPERTIES GENERATED ON
                            COMPILE_DEFINITIONS SOULCHAT_EMU)
file(GLOB attn_emu_sources ${CMAKE_SOURCE_DIR}/kernels/emu/emu.cc
     ${CMAKE_SOURCE_DIR}/kernels/emu/fiber.cc ${CMAKE_SOURCE_DIR}/kernels/emu/guard.cc
     ${CMAKE_SOURCE_DIR}/kernels/emu/launch_emu.cc)
cudnn_test(cudnn_attn cudnn_attn_test.cc ${cudnn_graph_sources} ${attn_cudnn_kernels}
           ${CMAKE_SOURCE_DIR}/kernels/cuda/attn_cudnn.cc
           ${CMAKE_SOURCE_DIR}/kernels/cuda/attn_library.cc ${attn_emu_sources})
target_link_libraries(cudnn_attn PRIVATE ${CMAKE_DL_LIBS})
add_dependencies(cudnn_attn cudnn_pretend cudnn_companion)
add_test(NAME cudnn_attn
         COMMAND cudnn_attn $<TARGET_FILE:cudnn_pretend> $<TARGET_FILE:cudnn_companion>)
set_tests_properties(cudnn_attn PROPERTIES TIMEOUT 1200)
