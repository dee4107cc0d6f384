# The PTX interpreter, its own tests, and the operator tests with every launch executed by it.
file(GLOB ptx_sources CONFIGURE_DEPENDS ptx/*.cc)
list(FILTER ptx_sources EXCLUDE REGEX "/(test_[a-z_]*|fixture|instead)\\.cc$")
add_library(soulchat_ptx_machine STATIC ${ptx_sources})
target_include_directories(soulchat_ptx_machine PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})
target_link_libraries(soulchat_ptx_machine PRIVATE soulchat_options)
# A product and a sum that are two instructions are rounded twice.
target_compile_options(soulchat_ptx_machine PRIVATE -O3 -ffp-contract=off
                       $<$<BOOL:${SOULCHAT_NATIVE}>:-march=native>)
set_target_properties(soulchat_ptx_machine PROPERTIES POSITION_INDEPENDENT_CODE ON
                      CXX_VISIBILITY_PRESET hidden)

foreach(subject lanes warps faults)
  add_executable(test_ptx_${subject} ptx/test_ptx_${subject}.cc ptx/fixture.cc)
  target_link_libraries(test_ptx_${subject} PRIVATE soulchat_testing soulchat_ptx_machine
                        soulchat_options)
  target_compile_options(test_ptx_${subject} PRIVATE -Wno-missing-field-initializers)
  set_target_properties(test_ptx_${subject} PROPERTIES
                        RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME test_ptx_${subject} COMMAND test_ptx_${subject})
endforeach()

# What nvcc makes of the kernels. One architecture: sm_90a's differs in nothing but its name.
find_program(SOULCHAT_NVCC nvcc HINTS /usr/local/cuda/bin)
mark_as_advanced(SOULCHAT_NVCC)
if(NOT SOULCHAT_NVCC OR SOULCHAT_SANITIZE OR NOT SOULCHAT_WITH_HDF5)
  # A build that leaves libraries out has the same kernels.
  message(STATUS "Kernels are not run from PTX: no nvcc, a sanitizer, or libraries left out")
  return()
endif()
set(ptx_folder ${CMAKE_BINARY_DIR}/ptx)
set(ptx_files)
foreach(file ${cuda_kernels})
  get_filename_component(stem ${file} NAME_WE)
  add_custom_command(
    OUTPUT ${ptx_folder}/${stem}.ptx
    COMMAND ${SOULCHAT_NVCC} -ptx -arch=compute_80 -std=c++17 -lineinfo -DNDEBUG
            -I${CMAKE_BINARY_DIR}/include/base -I${CMAKE_SOURCE_DIR} ${file}
            -o ${ptx_folder}/${stem}.ptx -MD -MF ${ptx_folder}/${stem}.d
    DEPENDS ${file}
    DEPFILE ${ptx_folder}/${stem}.d
    COMMENT "Compiling ${stem} to PTX"
    VERBATIM)
  list(APPEND ptx_files ${ptx_folder}/${stem}.ptx)
endforeach()
file(MAKE_DIRECTORY ${ptx_folder})
add_custom_target(ptx_kernels ALL DEPENDS ${ptx_files})

add_library(soulchat_ptx SHARED ptx/instead.cc)
target_include_directories(soulchat_ptx PRIVATE ${CMAKE_SOURCE_DIR}
  $<TARGET_PROPERTY:soulchat_base,INTERFACE_INCLUDE_DIRECTORIES>)
target_compile_definitions(soulchat_ptx PRIVATE SOULCHAT_EMU)
target_compile_options(soulchat_ptx PRIVATE -Wno-missing-field-initializers -Wno-unknown-pragmas)
target_link_libraries(soulchat_ptx PRIVATE soulchat_ptx_machine soulchat_options
                      ${CMAKE_DL_LIBS})
set_target_properties(soulchat_ptx PROPERTIES CXX_VISIBILITY_PRESET hidden)

function(ptx_test test)
  add_test(NAME ${test} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${test} PROPERTIES TIMEOUT 1200)
  set_property(TEST ${test} PROPERTY ENVIRONMENT OMP_WAIT_POLICY=passive
               SOULCHAT_TEST_DEVICES=emu SOULCHAT_PTX=${ptx_folder}
               LD_PRELOAD=$<TARGET_FILE:soulchat_ptx>)
endfunction()
foreach(file ${ops_tests})
  get_filename_component(name ${file} NAME_WE)
  string(REPLACE test_kernels_ops ptx_ops test ${name})
  ptx_test(${test} ${name})
endforeach()
ptx_test(ptx_ops_linear_fused test_kernels_ops_linear)
set_property(TEST ptx_ops_linear_fused APPEND PROPERTY ENVIRONMENT SOULCHAT_FUSE=dgelu)

# That the launches do go there; ctest forgives a shell's failure, and no abort.
ptx_test(ptx_is_used sh -c "$<TARGET_FILE:test_kernels_ops_optim> || exit 1")
set_property(TEST ptx_is_used APPEND PROPERTY ENVIRONMENT SOULCHAT_PTX=/nowhere)
set_tests_properties(ptx_is_used PROPERTIES PASS_REGULAR_EXPRESSION "SOULCHAT_PTX names no folder")
