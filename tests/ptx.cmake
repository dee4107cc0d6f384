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
